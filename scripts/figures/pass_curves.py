"""Draw pass@k over k from folders of evaluations (arXiv:2605.10781, Fig. 8).

python scripts/figures/pass_curves.py base=logs/eval/base rlrt=logs/eval/rlrt_0 rlrt=logs/eval/rlrt_1 --out docs/figures/pass_curves

A word is a folder, or method=folder; the folder of a comparison stands for all that it compares, each
one a method unless a method is named. Folders of one method are its seeds: their mean is drawn, and a band
from the lowest to the highest; of one folder the band is the 95 % bootstrap interval over problems. Writes
.svg, .png and .csv. Exit status 2, and nothing written, where a folder is no evaluation.
"""  # noqa: E501

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.pass_curves import curves, draw, evaluations_of, read_answers, rows
from rlrt.config.command_line import print_once, report_errors


def named(words: Sequence[str]) -> dict[str, list[Path]]:
    """Folders by method, in order; a folder that exists is one, whatever signs its name has.

    UserError where a comparison does not lie beside what it compares.
    """
    methods: dict[str, list[Path]] = {}
    for word in words:
        method, sign, folder = word.partition("=")
        if not sign or Path(word).is_dir():
            method, folder = "", word
        for name, evaluation in evaluations_of(Path(folder)).items():
            methods.setdefault(method or name, []).append(evaluation)
    return methods


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where an evaluation cannot be drawn."""
    parser = argparse.ArgumentParser(description="Draw pass@k over k from evaluations.")
    parser.add_argument(
        "evaluations", nargs="+", help="folders that eval.py wrote, or method=folder"
    )
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    parser.add_argument("--benchmark", help="this one alone; a panel for each without")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    options = parser.parse_args(arguments)
    require_place(options.out)
    methods = {
        method: [read_answers(folder) for folder in folders]
        for method, folders in named(options.evaluations).items()
    }
    pass_curves = curves(methods, options.benchmark, options.seed)
    for path in save_figure(draw(pass_curves), rows(pass_curves), options.out):
        print_once(str(path))


if __name__ == "__main__":
    with report_errors():
        main()
