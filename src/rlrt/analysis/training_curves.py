"""Training curves by method: a mean over seeds, with a band from the lowest seed to the highest."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlrt.analysis.figures import look, plain, tidy
from rlrt.analysis.runs import Curve, Methods, Run, curve
from rlrt.errors import UserError

Rows = list[dict[str, Any]]
LABEL_GAP = 0.06  # between two labels at line ends, in shares of the axis
PANELS_IN_A_ROW = 2
TITLES = {  # of columns that commands draw without being asked; others are called by their name
    "reward/mean": "training reward, mean",
    "rollout/response_tokens_mean": "response length, mean (tokens)",
    "rollout/engine_entropy": "entropy, as the engine sampled (nats)",
    "rollout/entropy": "entropy (nats)",
}
MANY_POINTS = 20  # of which not every one gets a marker


def trailing_mean(values: Curve, steps: int) -> Curve:
    """Each value averaged with up to ``steps - 1`` before it."""
    kept = list(values.items())
    return {
        step: fmean(value for _, value in kept[max(i + 1 - steps, 0) : i + 1])
        for i, (step, _) in enumerate(kept)
    }


def run_curve(run: Run, column: str, window: int) -> Curve:
    """A column over rollout steps: of metrics.csv, as a trailing mean over ``window`` steps, else of
    evaluation.csv, as it is. UserError where neither has it.
    """
    if values := curve(run.metrics, column):
        return trailing_mean(values, window)
    if values := curve(run.evaluations, column):
        return values
    raise UserError(f"{run.folder} has no column {column} in metrics.csv or evaluation.csv")


def curve_rows(methods: Methods, columns: Sequence[str], window: int) -> Rows:
    """Per column, method and step that all its seeds have: mean, lowest and highest, number of seeds.

    UserError where the seeds of a method have no step of a column in common.
    """
    return [
        row
        for column in columns
        for method, runs in methods.items()
        for row in band_rows(column, method, [run_curve(run, column, window) for run in runs])
    ]


def band_rows(column: str, method: str, curves: Sequence[Curve]) -> Rows:
    """A row per step that the curves of all seeds have; UserError where there is none."""
    steps = sorted(set.intersection(*(set(values) for values in curves)))
    if not steps:
        raise UserError(f"the runs of {method} have no rollout step of {column} in common")
    values_of = {step: [values[step] for values in curves] for step in steps}
    return [
        {
            "column": column,
            "method": method,
            "step": step,
            "mean": fmean(values),
            "lowest": min(values),
            "highest": max(values),
            "seeds": len(values),
        }
        for step, values in values_of.items()
    ]


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights for labels at these values: in their order, ``gap`` apart or more, as near as can be.

    Labels that touch move apart together about the mean of their values.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[list[int]] = []
    middles: list[float] = []
    for index in order:
        block, middle = [index], values[index]
        while blocks and middle - middles[-1] < gap * (len(block) + len(blocks[-1])) / 2:
            block = blocks.pop() + block
            middles.pop()
            middle = fmean(values[i] for i in block)
        blocks.append(block)
        middles.append(middle)
    placed = [0.0] * len(values)
    for block, middle in zip(blocks, middles, strict=True):
        for place, index in enumerate(block):
            placed[index] = middle + gap * (place - (len(block) - 1) / 2)
    return placed


def draw(rows: Sequence[Mapping[str, Any]], window: int) -> Figure:
    """One panel per column; every line is named at its end, beside its last mean."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    across = min(PANELS_IN_A_ROW, len(columns))
    down = math.ceil(len(columns) / across)
    figure = Figure(figsize=(6 * across, 3.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, column in zip(panels, columns, strict=False):
        of_column = [row for row in rows if row["column"] == column]
        ends = [
            _line(axes, number, [row for row in of_column if row["method"] == method])
            for number, method in enumerate(methods)
        ]
        axes.set_title(plain(title_of(column)))
        axes.set_xlabel("rollout steps")
        tidy(axes)
        _name_ends(axes, methods, ends)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    figure.supxlabel(_note(rows, window), fontsize=9, color="0.35")
    return figure


def title_of(column: str) -> str:
    """A column's name for those who do not know the tables."""
    held_out = column.startswith(("avg@", "pass@"))
    return f"held-out {column}" if held_out else TITLES.get(column, column)


def ends_of(values: Sequence[float]) -> list[str]:
    """Numbers for line ends, with the same decimals: three digits of the largest, and of 1."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = max(3 - math.ceil(math.log10(largest)), 0) if largest else 0
    return [f"{value:.{decimals}f}" for value in values]


def _note(rows: Sequence[Mapping[str, Any]], window: int) -> str:
    """What lines and bands are."""
    seeds = sorted({row["seeds"] for row in rows})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    note = f"mean of {counted} seeds, band from lowest to highest" if seeds[-1] > 1 else "one seed"
    return note + (f"; in training: mean of the last {window} steps" if window > 1 else "")


def _line(axes: Axes, number: int, rows: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Mean and band of a method; returns the last point."""
    steps, means = [row["step"] for row in rows], [row["mean"] for row in rows]
    low, high = [row["lowest"] for row in rows], [row["highest"] for row in rows]
    style = look(number)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, lw=0)
    sparse = (0.04 * number, 0.25) if len(steps) > MANY_POINTS else 1
    axes.plot(steps, means, lw=1.8, ms=4.5, markevery=sparse, **style)
    return steps[-1], means[-1]


def _name_ends(axes: Axes, methods: Sequence[str], ends: Sequence[tuple[int, float]]) -> None:
    """Beside the panel, each with a thin line from where it belongs and the marker of its line."""
    (low, high), beside = axes.get_ylim(), axes.get_yaxis_transform()
    heights = spread([value for _, value in ends], LABEL_GAP * (high - low))
    numbers = ends_of([value for _, value in ends])
    for number, (method, end, height) in enumerate(zip(methods, ends, heights, strict=True)):
        style = look(number)
        axes.annotate(
            "",
            end,
            xytext=(1.03, height),
            textcoords=beside,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.7, "color": style["color"], "shrinkA": 0},
        )
        axes.plot([1.03], [height], transform=beside, clip_on=False, ms=5, **style)
        name = f"{numbers[number]} {plain(method)}"
        axes.text(1.05, height, name, transform=beside, va="center", fontsize=9)
    axes.set_ylim(low, high)
