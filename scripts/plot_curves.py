"""Draw training curves from run folders, and print what they came to.

python scripts/plot_curves.py logs/rlrt_tiny/* logs/grpo_tiny/* --out docs/curves.svg

Held-out avg@k and a column of metrics.csv over rollout steps. Runs with the same credit settings are
one method. Exit status 2, and nothing written, where a folder is missing or its run has not ended.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from rlrt.assembly.configuration import stop_with_a_sentence
from rlrt.errors import UserError

FILES = ("config.yaml", "metrics.csv", "evaluation.csv")
# Okabe and Ito's colours, told apart by the colour-blind; the blue is lighter, to show on black
COLOURS = ("#2A86C7", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
INK = "#737A85"  # a contrast of at least 4 on white and on black; the background is transparent
LABEL_GAP = 0.055  # between two numbers at the same end, in shares of the axis

Row = dict[str, float]
Curve = dict[int, float]  # rollout step -> value
Methods = dict[str, list["Run"]]


@dataclass(frozen=True)
class Run:
    """One run folder: its credit settings, and the numeric columns of its two tables."""

    folder: Path
    seed: int
    credit: dict[str, Any]
    metrics: list[Row]
    evaluations: list[Row]


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV as numbers, empty cells left out; UserError where they are none."""
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a table of numbers ({error})") from error
    if not rows or any("step" not in row for row in rows):
        raise UserError(f"{path} holds no rollout steps")
    return rows


def read_run(folder: Path) -> Run:
    """A run folder; UserError naming what it lacks, or saying that its run has not ended."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no run folder: no such folder exists")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no whole run folder: {' and '.join(missing)} not found")
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    assert isinstance(config, dict)
    metrics, evaluations = (read_table(folder / name) for name in FILES[1:])
    done, evaluated = int(metrics[-1]["step"]) + 1, int(evaluations[-1]["step"])
    if done != evaluated or len(evaluations) < 2:
        raise UserError(
            f"{folder} holds a run that has not ended: {done} rollout steps done, the last "
            f"evaluation after {evaluated}; go on with resume={folder}"
        )
    return Run(folder, int(config["seed"]), config["credit"], metrics, evaluations)


def group_runs(runs: Sequence[Run]) -> Methods:
    """Methods in order of appearance, named by class and by the settings that tell them apart.

    UserError where two runs of a method have the same seed: they are not two samples.
    """
    credits: list[dict[str, Any]] = []
    for run in runs:
        if run.credit not in credits:
            credits.append(run.credit)

    def name(credit: dict[str, Any]) -> str:
        same_class = [other for other in credits if other["_target_"] == credit["_target_"]]
        differing = [
            f"{key}={credit.get(key)}"
            for key in sorted({key for other in same_class for key in other})
            if any(other.get(key) != credit.get(key) for other in same_class)
        ]
        return " ".join([credit["_target_"].rsplit(".", 1)[-1], *differing])

    methods = {name(credit): [run for run in runs if run.credit == credit] for credit in credits}
    for method, members in methods.items():
        if len({run.seed for run in members}) < len(members):
            folders = ", ".join(str(run.folder) for run in members)
            raise UserError(f"two runs of {method} have the same seed: {folders}")
    return methods


def score_of(runs: Sequence[Run]) -> str:
    """The column avg@k that all runs share; UserError where they evaluated differently."""
    names = {next((n for n in run.evaluations[0] if n.startswith("avg@")), "") for run in runs}
    if len(names) != 1 or "" in names:
        raise UserError(f"the runs were evaluated by {', '.join(sorted(names))}: not comparable")
    return names.pop()


def curve(rows: Sequence[Row], column: str) -> Curve:
    """A column over rollout steps."""
    return {int(row["step"]): row[column] for row in rows if column in row}


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
            draw_band(right, number, name, smoothed)
        left.set(title=f"held-out {score}", ylim=(0, 1))
        left.margins(x=0.12)
        annotate_ends(left, ends)
        right.set_title(f"{options.column} in training, mean of the last {options.smooth} steps")
        for axes in (left, right):
            axes.set_xlabel("rollout steps")
            axes.grid(color=INK, alpha=0.25, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        left.legend(frameon=False, loc="lower right")
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
    for run in runs:
        for column in (options.column, "time/step_s", "sync/logprob_gap"):
            if len(curve(run.metrics, column)) < len(run.metrics):
                raise UserError(f"{run.folder / 'metrics.csv'} lacks {column}")
    methods, score = group_runs(runs), score_of(runs)
    matplotlib.use("Agg")
    draw(methods, score, options)
    Console(width=120).print(summary(methods, score), highlight=False)


if __name__ == "__main__":
    with stop_with_a_sentence():
        main()
