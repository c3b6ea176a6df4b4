"""Theorem 2 of arXiv:2605.10781 drawn: Inf² against 2 D̄."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlrt.analysis.figures import COLOURS, MARKERS, plain, tidy
from rlrt.analysis.theory import KINDS

Rows = Sequence[Mapping[str, Any]]


WORLD_LIMITS = (1e-8, 20.0)  # of both axes; smaller values are not drawn
POLICY_LIMITS = (1e-5, 20.0)  # smaller values stand at the edge: sampling does not tell them from 0
MOST_IN_VECTORS = 500  # points of one series


def draw(rows: Rows, title: str) -> Figure:
    """The worlds on the left; where there are any, sampled positions on the right, under ``title``."""
    worlds = [row for row in rows if row["panel"] == "world"]
    policy = [row for row in rows if row["panel"] == "policy"]
    panels = 1 + bool(policy)
    figure = Figure(figsize=(5.6 * panels, 5), layout="constrained")
    left, *right = figure.subplots(1, panels, squeeze=False)[0]
    for number, (kind, label) in enumerate(KINDS.items()):
        of_kind = [row for row in worlds if row["kind"] == kind]
        _points(left, of_kind, "divergence", label, number, filled=True)
    left.set_title("worlds that are known whole: their nodes")
    _finish(left, WORLD_LIMITS)
    for axes in right:
        _error_bars(axes, policy)
        _points(axes, policy, "teacher_divergence", "D̄ of the real teacher view", 1)
        _points(axes, policy, "divergence", "D̄ of a Bayesian teacher with this f", 0)
        axes.set_title(plain(title))
        _finish(axes, POLICY_LIMITS)
    return figure


def _points(
    axes: Axes, rows: Rows, name: str, label: str, number: int, filled: bool = False
) -> None:
    least = 0.0 if filled else POLICY_LIMITS[0]
    axes.scatter(
        [max(2 * row[name], least) for row in rows],
        [max(row["influence"] ** 2, least) for row in rows],
        s=7 if filled else 26,
        marker=MARKERS[number],
        facecolors=COLOURS[number] if filled else "none",
        edgecolors=COLOURS[number],
        linewidths=0 if filled else 1.1,
        label=label,
        rasterized=len(rows) > MOST_IN_VECTORS,
        zorder=3 if number else 4,
    )


def _error_bars(axes: Axes, rows: Rows) -> None:
    """From two standard errors below the lower of the two estimates of Inf to two above the higher."""
    places: list[float] = []
    heights: list[float] = []
    for row in rows:
        estimates, error = (row["influence"], row["influence_low"]), 2 * row["influence_error"]
        ends = (max(min(estimates) - error, 0.0), max(estimates) + error)
        at = max(2 * row["teacher_divergence"], POLICY_LIMITS[0])
        places += [at, at, math.nan]  # one line with gaps: a file of half the size
        heights += [*(max(end**2, POLICY_LIMITS[0]) for end in ends), math.nan]
    axes.plot(places, heights, color=COLOURS[1], lw=0.6, alpha=0.5, zorder=2)


def _finish(axes: Axes, limits: tuple[float, float]) -> None:
    axes.plot(limits, limits, color="0.2", lw=1, label="Inf² = 2 D̄", zorder=5)
    low, high = limits
    axes.set(xscale="log", yscale="log", xlim=(low * 0.8, high), ylim=(low * 0.8, 1))
    axes.set(xlabel="2 D̄ (nats)", ylabel="Inf²")
    tidy(axes)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
