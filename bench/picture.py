"""The picture of all results: a panel for each part that has figures."""

import importlib
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

COLUMNS = 3


def draw_all(results: dict[str, Any], modules: dict[str, str], path: Path) -> None:
    """Write ``path``.svg and .png."""
    drawn = [name for name in modules if name in results and results[name]["rows"]]
    if not drawn:
        return
    lines = -(-len(drawn) // COLUMNS)
    columns = min(COLUMNS, len(drawn))
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(5.2 * columns, 3.8 * lines), squeeze=False, layout="constrained"
    )
    for spare in axes.flat[len(drawn) :]:
        spare.remove()
    for name, one in zip(drawn, axes.flat, strict=False):
        part = importlib.import_module(modules[name])
        part.picture(one, results[name]["rows"])
        note = " (toy size)" if results[name]["quick"] else ""
        one.set_title(part.TITLE + note, fontsize=10)
        one.tick_params(labelsize=8)
    for suffix in ("svg", "png"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=150)
    pyplot.close(figure)
