"""A picture of token credit: one row of colored cells per rollout, one panel per kind of number."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rlrt.errors import UserError

ENDINGS = (".png", ".svg")
INK = "#5A616B"
TOKEN_INCHES, LETTER_INCHES = 0.30, 0.085
ROW_INCHES, MANY_ROWS_INCHES, MANY_ROWS = 0.34, 0.2, 24
BAR_INCHES = (0.16, 3.0)  # the color bar, the second at most
MOST_INCHES = 24.0  # of the cells' width; with texts up to twice as much, without them thin cells
LONGEST_TEXT = 14  # characters of a token that are written
STYLE = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": "#C9CDD3",
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "rlrt",
}


@dataclass(frozen=True)
class Panel:
    """Values per token, NaN where a token of the response has none. ``center``: the neutral value
    of a diverging color map; None: the values start at 0.
    """

    title: str
    values_BT: Tensor
    center: float | None


def require_picture_path(path: Path) -> Path:
    """The path itself; UserError where no picture can be written there."""
    if path.suffix.lower() not in ENDINGS or not path.absolute().parent.is_dir():
        raise UserError(f"picture is {path}, it must be a .png or .svg in an existing folder")
    return path


def save_picture(
    path: Path,
    panels: Sequence[Panel],
    mask_BT: Tensor,
    labels: Sequence[str],
    texts: Sequence[Sequence[str] | None],
) -> None:
    """Write the panels below one another; the same input gives the same bytes.

    ``texts`` are written into the cells where there are few enough of them. Cells of tokens without
    a value are hatched, after the end of a response there is nothing.
    """
    if not mask_BT.any():
        raise UserError("there is no picture: no rollout has a token")
    written = [None if row is None else [_one_line(text) for text in row] for row in texts]
    rows, tokens = len(labels), mask_BT.shape[1]
    widest = max((len(text) for row in written if row for text in row), default=0)
    cell = max(TOKEN_INCHES, widest * LETTER_INCHES + 0.1)
    if with_texts := bool(widest) and cell * tokens <= 2 * MOST_INCHES:
        width = cell * tokens
    else:
        width = min(TOKEN_INCHES * tokens, MOST_INCHES)
    height = rows * (ROW_INCHES if rows <= MANY_ROWS else MANY_ROWS_INCHES)
    size = (max(width, 3.6) + 3, len(panels) * (height + 0.9))
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, panel in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
        ):
            image = _draw(axes, panel, mask_BT, labels, thin=width / tokens < 0.15)
            _add_bar(figure, axes, image, height)
            if with_texts:
                _write(axes, panel, image, written)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=160, metadata=metadata, facecolor="white")


def _draw(axes: Axes, panel: Panel, mask_BT: Tensor, labels: Sequence[str], thin: bool) -> Any:
    values = panel.values_BT.double().numpy()
    known = values[mask_BT.numpy() & np.isfinite(values)]
    norm: Normalize
    if panel.center is None:
        norm, colors = Normalize(0, max(known.max(initial=0), 1e-12)), "YlGnBu"
    else:
        away = np.abs(known - panel.center).max(initial=0)
        norm, colors = CenteredNorm(panel.center, max(away, 1e-12)), "coolwarm"
        if away == 0:
            norm.halfrange = 1.0
    for row, length in enumerate(mask_BT.sum(1).tolist()):
        if length:
            box = Rectangle(
                (-0.5, row - 0.4), length, 0.8, fill=False, hatch="//////", lw=0, zorder=-1
            )
            axes.add_patch(box)
    # every row of cells is a picture of its own, so that a gap stays between two rollouts
    image = None
    for row in range(len(labels)):
        cells = np.ma.masked_where(
            ~(mask_BT[row : row + 1].numpy() & np.isfinite(values[row : row + 1])),
            values[row : row + 1],
        )
        extent = (-0.5, values.shape[1] - 0.5, row + 0.4, row - 0.4)
        image = axes.imshow(
            cells, cmap=colors, norm=norm, extent=extent, aspect="auto", interpolation="nearest"
        )
    if not thin:
        for edge in range(1, values.shape[1]):
            axes.axvline(edge - 0.5, color="white", lw=1)
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("token")
    axes.set_title(panel.title, loc="left", fontweight="bold", color=INK)
    return image


def _add_bar(figure: Figure, axes: Axes, image: Any, height: float) -> None:
    """A color bar of the same width in every figure, beside cells ``height`` inches high."""
    width, longest = BAR_INCHES
    length = min(longest, max(height, 1))
    bar = figure.colorbar(
        image,
        ax=axes,
        pad=0.01,
        fraction=width / figure.get_figwidth(),
        aspect=length / width,
        shrink=min(length / height, 1),
    )
    bar.outline.set_visible(False)


def _write(axes: Axes, panel: Panel, image: Any, texts: Sequence[Sequence[str] | None]) -> None:
    """Token texts in their cells, white on dark colors."""
    for row, words in enumerate(texts):
        for t, word in enumerate(words or []):
            value = float(panel.values_BT[row, t])
            red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else [1] * 4
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            color = "white" if dark else "#20242A"
            axes.text(t, row, word, ha="center", va="center", color=color, parse_math=False)


def _one_line(text: str) -> str:
    """A token's text on one line, with signs for what cannot be printed, cut where it is long."""
    text = text.replace("\n", "↵").replace("\t", "⇥")
    text = "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
