"""Compare methods by their run folders, as one Markdown table.

python scripts/compare_runs.py logs/compare/*

One row per method: held-out avg@k before and after, and of the training the mean response length, the
policy's entropy and the reward over the first and the last steps, all as mean (lowest–highest) over
seeds; seconds per rollout step as the median over all of them. With another model, other problems or
other training settings a run is no seed of the method, and names tell what differs. Exit status 2 where
a folder is missing, its run has not ended, or seeds of a method ended after different numbers of steps.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

from rlrt.analysis.runs import Methods, Run, group_runs, read_run, require_columns, score_of
from rlrt.config.command_line import report_errors
from rlrt.errors import UserError

COLUMNS = {  # heading -> column of metrics.csv, format
    "length": ("rollout/response_tokens_mean", "{:.1f}"),
    "entropy": ("rollout/engine_entropy", "{:.3f}"),
    "reward": ("reward/mean", "{:.3f}"),
}


def over_seeds(runs: Sequence[Run], value: Callable[[Run], float], form: str) -> str:
    """``mean (lowest–highest)`` of a value; the value alone where there is one seed."""
    values = [value(run) for run in runs]
    mean = form.format(fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({form.format(min(values))}–{form.format(max(values))})"


def row(name: str, runs: Sequence[Run], score: str, window: int) -> list[str]:
    """The cells of one method."""
    cells = [f"`{name}`", ", ".join(str(run.seed) for run in runs)]
    for position in (0, -1):
        cells.append(over_seeds(runs, lambda run, p=position: run.evaluations[p][score], "{:.3f}"))
    for column, form in COLUMNS.values():
        for part in (slice(None, window), slice(-window, None)):
            cells.append(
                over_seeds(
                    runs, lambda run, c=column, p=part: fmean(m[c] for m in run.metrics[p]), form
                )
            )
    seconds = median(metrics["time/step_s"] for run in runs for metrics in run.metrics)
    return [*cells, f"{seconds:.2f}"]


def require_equal_lengths(methods: Methods) -> None:
    """UserError where the runs of a method ended after different steps: their ends have no mean."""
    for name, runs in methods.items():
        if len(steps := sorted({run.evaluations[-1]["step"] for run in runs})) > 1:
            lengths = " and ".join(f"{step:g}" for step in steps)
            raise UserError(f"runs of {name} ended after {lengths} rollout steps: not comparable")


def table(methods: Methods, score: str, window: int) -> str:
    """The comparison in Markdown."""
    steps = sorted({len(run.metrics) for runs in methods.values() for run in runs})
    after = str(steps[0]) if len(steps) == 1 else f"{steps[0]}–{steps[-1]}"
    headings = ["method", "seeds", f"{score} before", f"after {after} steps"]
    for name in COLUMNS:
        headings += [f"{name}, first {window}", f"last {window}"]
    rows = [[*headings, "s/step"], ["---"] * (len(headings) + 1)]
    rows += [row(name, runs, score, window) for name, runs in methods.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where runs cannot be compared."""
    parser = argparse.ArgumentParser(description="Compare methods by their run folders.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--window", type=int, default=5, help="rollout steps in a mean (>= 1)")
    options = parser.parse_args(arguments)
    if options.window < 1:
        raise UserError(f"--window is {options.window}, it must be at least 1")
    runs = [read_run(folder) for folder in options.runs]
    require_columns(runs, [column for column, _ in COLUMNS.values()] + ["time/step_s"])
    methods = group_runs(runs)
    require_equal_lengths(methods)
    print(table(methods, score_of(runs), options.window))


if __name__ == "__main__":
    with report_errors():
        main()
