"""Critical positions as a still picture, as in arXiv:2605.10781, figure 2."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rlrt.analysis.critical_positions import Trajectory, compact
from rlrt.analysis.figures import COLOURS

LINE, LINE_WITH_TEXTS, MOST_TEXTS = 250, 24, 240  # tokens
MOST_LABELS = 12  # of lines
DARK = 0.36  # share of the scale above which texts are white


def draw(trajectories: Sequence[Trajectory]) -> Figure:
    """A row per response: its heat map, and the candidates at its most critical position."""
    heights = [_height(one) for one in trajectories]
    figure, axes = plt.subplots(
        len(trajectories),
        2,
        figsize=(15, sum(heights)),
        width_ratios=(3, 1),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    top = max(float(one.positions.divergence_T.max()) for one in trajectories)
    for (left, right), one in zip(axes, trajectories, strict=True):
        image = _draw_tokens(left, one, top)
        _draw_candidates(right, one)
    bar = figure.colorbar(image, ax=axes[:, 0], location="bottom", aspect=60, shrink=0.5)
    bar.set_label("D̄ = KL(P_S ‖ P_T), nats (square-root scale)")
    return figure


def _line(one: Trajectory) -> int:
    return LINE_WITH_TEXTS if len(one.texts) <= MOST_TEXTS else LINE


def _height(one: Trajectory) -> float:
    """Inches of a response's row."""
    width = _line(one)
    each = 0.45 if width == LINE_WITH_TEXTS else 0.06
    return max(each * -(-len(one.texts) // width) + 0.9, 2.8)


def _draw_tokens(axes: Axes, one: Trajectory, top: float) -> Any:
    """The response line by line, shaded by D̄; the critical positions are framed."""
    width, count = _line(one), len(one.texts)
    cells = torch.full((-(-count // width) * width,), torch.nan)
    cells[:count] = one.positions.divergence_T
    norm = PowerNorm(0.5, 0, max(top, 1e-12))
    image = axes.imshow(cells.view(-1, width).numpy(), cmap="YlOrRd", norm=norm, aspect="auto")
    for rank, t in enumerate(one.candidates):
        y, x = divmod(t, width)
        frame = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=2 if rank == 0 else 1)
        axes.add_patch(frame)
    if width == LINE_WITH_TEXTS:
        for t, text in enumerate(one.texts):
            y, x = divmod(t, width)
            dark = float(one.positions.divergence_T[t]) > DARK * top
            axes.text(
                x, y, compact(text, 8), ha="center", va="center", fontsize=8,
                color="white" if dark else "black", parse_math=False,
            )  # fmt: skip
    axes.set(xticks=[], title=f"{one.label}: reward {one.rollout.reward:g}")
    lines = len(cells) // width
    each = -(-lines // MOST_LABELS)
    axes.set_yticks(range(0, lines, each), [str(y * width) for y in range(0, lines, each)])
    axes.set_ylabel("position")
    axes.spines[:].set_visible(False)
    return image


def _draw_candidates(axes: Axes, one: Trajectory) -> None:
    """P_S and P_T of the candidates at the most critical position."""
    t, candidates = next(iter(one.candidates.items()))
    for offset, name, values in (
        (-0.2, "P_S", [c.student for c in candidates]),
        (0.2, "P_T", [c.teacher for c in candidates]),
    ):
        colour = COLOURS[1] if name == "P_S" else COLOURS[0]
        places = [place + offset for place in range(len(candidates))]
        axes.barh(places, values, height=0.38, color=colour, label=name)
    names = [f"{compact(c.text, 12)}  {c.side}" for c in candidates]
    axes.set_yticks(range(len(candidates)), names, parse_math=False)
    axes.invert_yaxis()
    axes.axhline(len(candidates) / 2 - 0.5, color="grey", lw=0.8)
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.set_title(f"position {t}, D̄ = {float(one.positions.divergence_T[t]):.3f}")
    axes.legend(loc="lower right")
