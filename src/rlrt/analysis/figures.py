"""A figure and the numbers behind it, on the disk together."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rlrt.files import write_atomically

# told apart without colour too, in this order (Okabe and Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def save_figure(figure: Figure, rows: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """Write ``out`` with the endings .svg, .png and .csv, and close the figure; returns the files.

    ``out`` has no ending of its own, or one of these. The same numbers give the same bytes: the SVG
    carries no date, and its ids are fixed.
    """
    stem = out.with_suffix("") if out.suffix in (".svg", ".png", ".csv") else out
    made = []
    with plt.rc_context({"svg.hashsalt": "rlrt", "svg.fonttype": "none"}):
        for kind, about in ((".svg", {"Date": None}), (".png", {"Software": None})):
            path = stem.with_name(stem.name + kind)
            options: dict[str, Any] = {
                "format": kind[1:],
                "dpi": 160,
                "bbox_inches": "tight",
                "metadata": about,
            }
            write_atomically(path, partial(figure.savefig, **options))
            made.append(path)
    plt.close(figure)
    return [*made, save_rows(rows, stem.with_name(stem.name + ".csv"))]


def save_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as CSV, columns in order of appearance; a missing value is an empty cell."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))

    def write(unfinished: Path) -> None:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)
    return path
