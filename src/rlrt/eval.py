"""Evaluate policies: ``python src/rlrt/eval.py model=tiny benchmark=arithmetic``.

``model`` takes presets, run folders, checkpoints, model folders and hub names, ``benchmark`` names and
files, each one or several with commas between. What is killed goes on by the same command. Heavy
imports wait until the words are known to be sound.
"""

import sys
from collections.abc import Sequence

from rlrt.config.command_line import grow_segments, print_help, report_errors
from rlrt.evaluation.arguments import USAGE, parse


def main(arguments: Sequence[str]) -> None:
    """One evaluation, from the start or from where it was killed."""
    if print_help(arguments, USAGE):
        return
    grow_segments()
    with report_errors(advice="the same command goes on from here"):
        command = parse(arguments)
        from rlrt.evaluation.evaluate import evaluate

        evaluate(command)


if __name__ == "__main__":
    main(sys.argv[1:])
