"""Evaluate policies: ``python src/rlrt/eval.py model=tiny benchmark=arithmetic``.

``model`` takes presets, run folders, checkpoints, model folders and hub names, ``benchmark`` names and
files, each one or several with commas between. What is killed goes on by the same command. Heavy
imports wait until the words are known to be sound.
"""

import os
import sys
from collections.abc import Sequence

from rlrt.assembly.configuration import register_resolvers, stop_with_a_sentence
from rlrt.assembly.words import USAGE, parse

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read by PyTorch when it is imported


def main(arguments: Sequence[str]) -> None:
    """One evaluation, from the start or from where it was killed."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return
    with stop_with_a_sentence(advice="the same command goes on from here"):
        words = parse(arguments)
        register_resolvers()
        from rlrt.assembly.evaluation import (
            evaluate,
        )  # heavy: after the words are known to be sound

        evaluate(words)


if __name__ == "__main__":
    main(sys.argv[1:])
