"""Words of doubt and response length over training (arXiv:2603.24472), from run folders.

python scripts/figures/uncertainty.py logs/rlrt_tiny/* logs/grpo_tiny/* --out docs/figures/uncertainty

The rate of ten words ("wait", "hmm", "maybe" …) per 1,000 response tokens and the mean response length, from
the records of every rollout step; a line per method, a band over its seeds. Writes .svg, .png and .csv, a
row per run and step. Exit status 2, and nothing written, where a run has not ended or lacks records.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.runs import group_runs, read_run
from rlrt.analysis.uncertainty import PANELS, draw, uncertainty
from rlrt.config.command_line import print_once, report_errors, require_at_least


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where a run cannot be drawn."""
    parser = argparse.ArgumentParser(description="Draw words of doubt and length over training.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, with records")
    parser.add_argument("--smooth", type=int, default=10, help="rollout steps in a mean (10; >= 1)")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    options = parser.parse_args(arguments)
    require_at_least(options, smooth=1)
    require_place(options.out)
    methods = group_runs([read_run(folder) for folder in options.runs])
    rows = uncertainty(methods)
    for path in save_figure(draw(rows, options.smooth), rows, options.out):
        print_once(str(path))
    for name, runs in methods.items():
        steps = max(row["step"] for row in rows if row["method"] == name)
        ends = range(options.smooth), range(steps + 1 - options.smooth, steps + 1)
        for column, title in PANELS.items():
            first, last = (
                fmean(r[column] for r in rows if r["method"] == name and r["step"] in end)
                for end in ends
            )
            seeds = ", ".join(str(run.seed) for run in runs)
            print_once(f"{name} (seeds {seeds}): {title} {first:.2f} → {last:.2f}")


if __name__ == "__main__":
    with report_errors():
        main()
