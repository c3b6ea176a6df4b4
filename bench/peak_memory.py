"""(c) Peak memory of scoring and of updates against T and V, beside the naive computation.

A network of width 64, so that logits outweigh the rest. Every figure comes from a process of its own,
where freed blocks go back at once, so that the resident set is what is alive. Updates of both sides
must agree.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import marked
from matplotlib.axes import Axes
from rich.table import Table

TITLE = "peak memory"
GIB = 2**30
FULL, HALF, LOW = 151_936, 75_968, 32_768  # ids; the first is Qwen3's
LONG = 8192  # tokens
# logits in float32 that the naive side holds at its peak, measured
COPIES = {"score": 2, "update": 3, "distillation": 4}
POINTS = [
    *((what, FULL, tokens, True) for what in COPIES for tokens in (1024, 2048, 4096, LONG)),
    *((what, vocabulary, LONG, False) for what in COPIES for vocabulary in (LOW, HALF)),
]
QUICK = [(what, 4096, 64, True) for what in COPIES]
FLAT, BELOW = 0.1, 4  # asked: growth from LOW to FULL, and times below the naive update
ASKED_APART = 1e-5


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per point."""
    return [compare(*point) for point in (QUICK if quick else POINTS)]


def compare(what: str, vocabulary: int, tokens: int, beside_naive: bool) -> dict[str, Any]:
    """Both sides' figures; the naive one only where it is wanted and fits into free memory."""
    row: dict[str, Any] = {"what": what, "vocabulary": vocabulary, "tokens": tokens}
    row["naive_estimate_gib"] = COPIES[what] * vocabulary * tokens * 4 / GIB
    fits = row["naive_estimate_gib"] + 1 < available_gib()
    with tempfile.TemporaryDirectory() as folder:
        row["rlrt"] = point("rlrt", what, vocabulary, tokens, folder)
        if not beside_naive:
            return row
        if not fits:
            return row | {"note": "naive: not enough free memory"}
        row["naive"] = point("naive", what, vocabulary, tokens, folder)
        if what != "score":
            ours, naive = (torch.load(Path(folder) / side) for side in ("rlrt", "naive"))
            row["gradient_apart"] = float((ours - naive).norm() / naive.norm())
            assert row["gradient_apart"] < ASKED_APART, row
    return row


def point(side: str, what: str, vocabulary: int, tokens: int, folder: str) -> dict[str, float]:
    """Run one measurement in a child."""
    script = str(Path(__file__).with_name("peak_memory_point.py"))
    command = [sys.executable, script, side, what, str(vocabulary), str(tokens), folder]
    # glibc: larger blocks are pages of their own
    threshold = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, **threshold}
    )
    return json.loads(done.stdout.splitlines()[-1])


def available_gib() -> float:
    """What the machine can still give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return kib * 1024 / GIB


def table(rows: list[dict[str, Any]]) -> Table:
    """GiB over what is held before."""
    head = (
        "what",
        "V",
        "T",
        "rlrt GiB",
        "naive GiB",
        "naive / rlrt",
        "over V = 32k",
        "grad. apart",
    )
    output = Table(*head, "rlrt s", "naive s", title=TITLE)
    low = {(r["what"], r["tokens"]): r["rlrt"]["gib"] for r in rows if r["vocabulary"] == LOW}
    for row in rows:
        ours, naive = row["rlrt"], row.get("naive")
        times = naive["gib"] / ours["gib"] if naive else None
        base = low.get((row["what"], row["tokens"]))
        output.add_row(
            row["what"],
            f"{row['vocabulary']:,}",
            f"{row['tokens']:,}",
            f"{ours['gib']:.3f}",
            f"{naive['gib']:.2f}" if naive else f"about {row['naive_estimate_gib']:.1f}, not run",
            marked(f"{times:.1f}", times >= BELOW) if times else "",
            marked(f"{ours['gib'] / base - 1:+.1%}", ours["gib"] / base - 1 < FLAT) if base else "",
            f"{row['gradient_apart']:.0e}" if "gradient_apart" in row else "",
            f"{ours['seconds']:.1f}",
            f"{naive['seconds']:.1f}" if naive else "",
        )
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """GiB against T at the largest V, both sides."""
    largest = max(row["vocabulary"] for row in rows)
    for what, color in zip(COPIES, ("#4477aa", "#ee6677", "#228833"), strict=True):
        for side, line in (("rlrt", "-"), ("naive", ":")):
            chosen = [
                row
                for row in rows
                if (row["what"], row["vocabulary"]) == (what, largest) and side in row
            ]
            axes.plot(
                [row["tokens"] for row in chosen],
                [row[side]["gib"] for row in chosen],
                line,
                marker="o",
                markersize=3,
                color=color,
                label=f"{what}, {side}",
            )
    axes.set(xscale="log", yscale="log", xlabel=f"tokens, V = {largest:,}", ylabel="GiB")
    axes.legend(fontsize=7)
