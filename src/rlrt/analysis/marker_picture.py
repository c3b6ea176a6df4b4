"""The picture of markers: a volcano plot and bars (arXiv:2605.10781, Fig. 3)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlrt.analysis.figures import COLOURS, tidy
from rlrt.analysis.marker_categories import CATEGORIES, OTHER
from rlrt.analysis.markers import Scored, fold

SIDES = {"explore": (COLOURS[1], "^"), "exploit": (COLOURS[0], "v")}
GREY = "#8a9099"
BY_CATEGORY = dict(zip((*CATEGORIES, OTHER), (*COLOURS[:5], GREY), strict=True))


def draw(scored: Sequence[Scored], title: str, caption: str, top: int = 12) -> Figure:
    """Left ``log2(e/x)`` against ``log10(e+x)`` of all tokens, right the z of the ``top`` markers a
    side, which alone are named.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    _volcano(left, scored, top)
    _bars(right, scored, top)
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, parse_math=False)
    figure.supxlabel(caption, fontsize=8, color=GREY, parse_math=False)
    return figure


def _volcano(axes: Axes, scored: Sequence[Scored], top: int) -> None:
    for role, (colour, shape) in {"": (GREY, "."), **SIDES}.items():
        rows = [row for row in scored if row.role == role]
        places = [(fold(row), np.log10(row.explore + row.exploit)) for row in rows]
        label = f"{role} marker ({len(rows)})" if role else f"no marker ({len(rows)})"
        x, y = zip(*places, strict=True) if places else ((), ())
        axes.scatter(x, y, s=28, c=colour, marker=shape, lw=0, alpha=0.8, label=label)
        for row, place in sorted(zip(rows, places, strict=True), key=lambda p: -abs(p[0].z))[:top]:
            if role:
                outwards = 1 if role == "explore" else -1
                axes.annotate(
                    row.token,
                    place,
                    xytext=(5 * outwards, 2),
                    ha="left" if outwards > 0 else "right",
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                    parse_math=False,
                )
    axes.axvline(0, color=GREY, lw=0.8)
    axes.margins(x=0.2)
    axes.set(xlabel="log2(e / x)", ylabel="log10(e + x)", title="counts e (explore), x (exploit)")
    axes.legend(frameon=False, fontsize=8)


def _bars(axes: Axes, scored: Sequence[Scored], top: int) -> None:
    explore = [row for row in scored if row.role == "explore"][:top]
    exploit = [row for row in scored if row.role == "exploit"][-top:]
    shown = [*explore, *exploit][::-1]  # the first on top
    colours = [BY_CATEGORY[row.category] for row in shown]
    axes.barh(range(len(shown)), [row.z for row in shown], color=colours)
    axes.set_yticks(range(len(shown)), [row.token for row in shown], fontsize=8, parse_math=False)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set(xlabel="z  (exploit < 0 < explore)", title="strongest markers")
    there = {row.category for row in shown}
    keys = [Line2D([], [], color=c, lw=6, label=n) for n, c in BY_CATEGORY.items() if n in there]
    if keys:
        axes.legend(handles=keys, frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "no markers", transform=axes.transAxes, ha="center", color=GREY)
