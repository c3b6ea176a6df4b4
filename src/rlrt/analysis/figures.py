"""A figure and its numbers, saved together."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot is imported, which would look for a screen
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlrt.errors import UserError
from rlrt.files import write_atomically, write_csv

OUT = "file to write, without its ending: .svg, .png and .csv are added"  # help of the option
ENDINGS = (".svg", ".png", ".csv")  # of what a figure is written to
# Okabe and Ito's, in this order: they differ without color vision too
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", "-.", ":")  # beside the colors, for those who cannot tell them apart
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LEGEND_SIGN, LEGEND_LETTER, LEGEND_LINE = 52, 6.2, 15  # points, at the usual size of letters


def look(number: int) -> dict[str, Any]:
    """Color, dash and marker of the line with this number."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def tidy(axes: Axes) -> None:
    """A faint grid behind the data, and no frame above and on the right."""
    axes.grid(color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain(text: str) -> str:
    """What shows the text as it is: a ``$`` opens no formula, and a first ``_`` hides in no legend."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below all panels, in as many columns as fit; a figure with many lines of it grows."""
    if not handles:
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = int(72 * figure.get_figwidth() / (LEGEND_SIGN + LEGEND_LETTER * longest))
    columns = min(max(fitting, 1), len(handles))
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (lines - 1) / 72)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def require_place(out: Path, *others: str) -> None:
    """UserError where ``save_figure``, and files of ``others`` endings beside it, cannot be written.

    To be asked before any work. Nothing is left over: missing folders are made when there is
    something to keep.
    """
    new_folders: list[Path] = []
    try:
        stem = _stem(out)
        for folder in reversed(stem.absolute().parents):
            if not folder.exists():
                folder.mkdir()
                new_folders.append(folder)
        for ending in (*ENDINGS, *others):
            path = stem.with_name(stem.name + ending)
            if path.is_dir():
                raise UserError(f"--out is {out}, and {path} is a folder")
            with NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
                pass  # a name that is too long, a folder that is not ours, a disk that is full
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it names no file"
        raise UserError(f"--out is {out}, where nothing can be written ({why})") from error
    finally:
        for folder in reversed(new_folders):
            folder.rmdir()


def _stem(out: Path) -> Path:
    """Without an ending that is the figure's own; ValueError where it has no name."""
    stem = out.with_suffix("") if out.suffix in ENDINGS else out
    if stem.name in ("", ".."):
        raise ValueError(f"{out} names no file")
    return stem


def save_figure(figure: Figure, rows: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """Write ``out`` with the endings .svg, .png and .csv, and close the figure; returns the files.

    ``out`` has no ending of its own, or one of these. The same numbers give the same bytes: the SVG
    carries no date, and its ids are fixed.
    """
    stem = _stem(out)
    pictures = []
    with plt.rc_context({"svg.hashsalt": "rlrt", "svg.fonttype": "none"}):
        for kind, about in ((".svg", {"Date": None}), (".png", {"Software": None})):
            path = stem.with_name(stem.name + kind)
            options: dict[str, Any] = {
                "format": kind[1:],
                "dpi": 160,
                "bbox_inches": "tight",
                "metadata": about,
            }
            write_atomically(path, partial(_write, figure, options))
            pictures.append(path)
    plt.close(figure)
    table = stem.with_name(stem.name + ".csv")
    write_csv(rows, table)
    return [*pictures, table]


def _write(figure: Figure, options: Mapping[str, Any], unfinished: Path) -> None:
    figure.savefig(unfinished, **options)
    if options["format"] == "svg":
        # paths to a hundredth of a point: half of the bytes, and nothing that is seen
        drawn = unfinished.read_text(encoding="utf-8")
        short = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), drawn)
        unfinished.write_text(short, encoding="utf-8")
