"""Draw training curves from run folders, and print what they came to.

python scripts/plot_curves.py logs/rlrt_tiny/* logs/grpo_tiny/* --out docs/curves.svg

Held-out avg@k and a column of metrics.csv over rollout steps. Runs with the same settings of the
method are one method. Exit status 2, and nothing written, where a folder is missing or its run has not ended.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from rlrt.analysis.runs import (
    Curve,
    Methods,
    curve,
    group_runs,
    read_run,
    require_columns,
    score_of,
)
from rlrt.assembly.configuration import stop_with_a_sentence
from rlrt.errors import UserError

# Okabe and Ito's colours, told apart by the colour-blind; the blue is lighter, to show on black
COLOURS = ("#2A86C7", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
INK = "#737A85"  # a contrast of at least 4 on white and on black; the background is transparent
LABEL_GAP = 0.055  # between two numbers at the same end, in shares of the axis


def trailing_mean(values: Curve, steps: int) -> Curve:
    """Each value averaged with up to ``steps - 1`` before it."""
    kept = list(values.items())
    return {
        step: fmean(value for _, value in kept[max(i + 1 - steps, 0) : i + 1])
        for i, (step, _) in enumerate(kept)
    }


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions for labels at these values, in order, moved up where two are closer than ``gap``."""
    placed: dict[int, float] = {}
    below = float("-inf")
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        below = placed[index] = max(values[index], below + gap)
    return [placed[index] for index in range(len(values))]


def draw_band(axes: Axes, number: int, label: str, curves: Sequence[Curve]) -> tuple[Any, Any]:
    """Mean line and min-max band over the steps that all curves have; returns its two end points."""
    steps = sorted(set.intersection(*(set(values) for values in curves)))
    columns = [[values[step] for values in curves] for step in steps]
    means = [fmean(column) for column in columns]
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    axes.fill_between(
        steps, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.2, lw=0
    )
    axes.plot(steps, means, dash, color=colour, lw=2, label=label)
    return (steps[0], means[0]), (steps[-1], means[-1])


def annotate_ends(axes: Axes, ends: Sequence[tuple[Any, Any]]) -> None:
    """Write the first and the last mean of every line beside it, in its colour."""
    low, high = axes.get_ylim()
    for side, offset, align in ((0, -5, "right"), (1, 5, "left")):
        heights = spread([end[side][1] for end in ends], LABEL_GAP * (high - low))
        for number, (end, height) in enumerate(zip(ends, heights, strict=True)):
            axes.annotate(
                f"{end[side][1]:.2f}",
                (end[side][0], height),
                xytext=(offset, 0),
                textcoords="offset points",
                ha=align,
                va="center",
                color=COLOURS[number % len(COLOURS)],
                fontweight="bold",
            )


def draw(methods: Methods, score: str, options: argparse.Namespace) -> None:
    """Write the figure to ``options.out``."""
    ink = {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
    style = {**ink, "axes.edgecolor": INK, "axes.labelcolor": INK, "svg.hashsalt": "rlrt"}
    with matplotlib.rc_context({**style, "font.size": 11, "axes.titlesize": 11}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        ends = []
        for number, (name, runs) in enumerate(methods.items()):
            label = f"{name}, {len(runs)} seeds: mean, min–max" if len(runs) > 1 else name
            scores = [curve(run.evaluations, score) for run in runs]
            ends.append(draw_band(left, number, label, scores))
            columns = [curve(run.metrics, options.column) for run in runs]
            smoothed = [trailing_mean(column, options.smooth) for column in columns]
            draw_band(right, number, f"_{name}", smoothed)  # the underscore: in no legend
        left.set(title=f"held-out {score}", ylim=(0, 1))
        left.margins(x=0.12)
        annotate_ends(left, ends)
        right.set_title(f"{options.column} in training, mean of the last {options.smooth} steps")
        for axes in (left, right):
            axes.set_xlabel("rollout steps")
            axes.grid(color=INK, alpha=0.25, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(options.title)
        metadata = {"Date": None} if options.out.suffix == ".svg" else None
        figure.savefig(options.out, transparent=True, dpi=160, metadata=metadata)
        plt.close(figure)


def summary(methods: Methods, score: str) -> Table:
    """One row per method: where it started, where it ended, what a step costs."""
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    columns = ("seeds", f"start {score}", f"end {score}", "steps", "s/step", "max logprob gap")
    for heading in columns:
        table.add_column(heading, justify="right")

    def mean_and_range(values: list[float]) -> str:
        return f"{fmean(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    for name, runs in methods.items():
        rows = [row for run in runs for row in run.metrics]
        steps = sorted({len(run.metrics) for run in runs})
        table.add_row(
            name,
            ",".join(str(run.seed) for run in runs),
            mean_and_range([run.evaluations[0][score] for run in runs]),
            mean_and_range([run.evaluations[-1][score] for run in runs]),
            str(steps[0]) if len(steps) == 1 else f"{steps[0]}–{steps[-1]}",
            f"{median(row['time/step_s'] for row in rows):.2f}",
            f"{max(row['sync/logprob_gap'] for row in rows):.1e}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where a run cannot be drawn."""
    parser = argparse.ArgumentParser(description="Draw training curves from run folders.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="a file ending in .svg or .png")
    parser.add_argument("--column", default="reward/mean", help="of metrics.csv, right panel")
    parser.add_argument("--smooth", type=int, default=10, help="rollout steps in a mean (>= 1)")
    parser.add_argument("--title", default="")
    options = parser.parse_args(arguments)
    if options.out.suffix not in (".svg", ".png") or not options.out.absolute().parent.is_dir():
        raise UserError(f"--out is {options.out}, it must be a .svg or .png in an existing folder")
    if options.smooth < 1:
        raise UserError(f"--smooth is {options.smooth}, it must be at least 1")
    runs = [read_run(folder) for folder in options.runs]
    require_columns(runs, (options.column, "time/step_s", "sync/logprob_gap"))
    methods, score = group_runs(runs), score_of(runs)
    matplotlib.use("Agg")
    draw(methods, score, options)
    Console(width=120).print(summary(methods, score), highlight=False)


if __name__ == "__main__":
    with stop_with_a_sentence():
        main()
