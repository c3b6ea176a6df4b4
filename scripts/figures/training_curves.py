"""Training curves by method, with bands over seeds (arXiv:2605.10781, Fig. 1a, 5, 9, 11).

python scripts/figures/training_curves.py logs/rlrt_tiny/* logs/grpo_tiny/* --out docs/figures/training_curves

A panel per column of metrics.csv (a mean of the last --window steps) or of evaluation.csv; without --columns
held-out avg@k, training reward, response length and entropy. Runs with the same settings of the method are
one method: the line is the mean of its seeds, the band goes from the lowest to the highest. Compare methods
by rollout/engine_entropy; rollout/entropy is over what each method reads, unless
training.score_all=true. Writes .svg, .png and .csv. Exit status 2, and nothing written, where a folder is
missing, or where a run has not ended (--unfinished draws it as far as it came).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.runs import group_runs, read_run, score_of
from rlrt.analysis.training_curves import curve_rows, draw
from rlrt.config.command_line import print_once, report_errors, require_at_least

COLUMNS = ("reward/mean", "rollout/response_tokens_mean", "rollout/engine_entropy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where a run cannot be drawn."""
    parser = argparse.ArgumentParser(description="Draw training curves from run folders.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    parser.add_argument(
        "--columns", help="columns of metrics.csv or evaluation.csv, commas between"
    )
    parser.add_argument("--window", type=int, default=5, help="rollout steps in a mean (5; >= 1)")
    parser.add_argument(
        "--unfinished", action="store_true", help="draw runs that have not ended too"
    )
    options = parser.parse_args(arguments)
    require_at_least(options, window=1)
    require_place(options.out)
    runs = [read_run(folder, unfinished=options.unfinished) for folder in options.runs]
    columns = options.columns.split(",") if options.columns else [score_of(runs), *COLUMNS]
    rows = curve_rows(group_runs(runs), columns, options.window)
    for path in save_figure(draw(rows, options.window), rows, options.out):
        print_once(str(path))


if __name__ == "__main__":
    with report_errors():
        main()
