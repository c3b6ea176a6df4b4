"""(g) How an update grows with rollouts, with their length, and with processes.

Beside the measured growth from one point to the next stands that of the counted operations, and the
share of attention in them: the part that grows with the square of the length.
"""

import math
from importlib.util import find_spec
from itertools import pairwise
from statistics import median
from typing import Any

import ours
from common import slope
from counted import attention_share, update_flops
from matplotlib.axes import Axes
from rich.table import Table
from training_run import training_rows
from workload import SHAPES, Workload, draw

from rlrt.credit.grpo import GRPO

TITLE = "growth of an update"
ROLLOUTS = (8, 16, 32, 64, 128, 256)
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)  # response tokens, of two rollouts
BUDGET = 8192  # tokens of a micro-batch; a longer sequence is one by itself
REPEATS = 3
LINEAR = 1.1  # exponents up to here count as linear


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per point of the three series."""
    shape, repeats = ("toy", 1) if quick else ("small", REPEATS)
    rows = [
        row_of("rollouts", count, shape, draw(count // 8, 8, 64 if quick else 128), repeats)
        for count in (ROLLOUTS[:2] if quick else ROLLOUTS)
    ]
    rows += [
        row_of("length", length, shape, draw(1, 2, length, lengths=[length] * 2), repeats)
        for length in (LENGTHS[:2] if quick else LENGTHS)
    ]
    return with_growth(rows + ([] if quick else processes()))


def row_of(series: str, size: int, shape: str, load: Workload, repeats: int) -> dict[str, Any]:
    """Median seconds of an update, and what was counted."""
    policy = SHAPES[shape].policy()
    module = ours.module_of(policy, max(BUDGET, 2 * load.longest))
    prepare = ours.one_update(ours.rollouts_of(load), GRPO())
    seconds = ours.run(module, prepare, rounds=repeats + 1).updates_s[1:]  # after a warm-up
    return {
        "series": series,
        "size": size,
        "model": shape,
        "seconds": median(seconds),
        "tokens": load.response_tokens,
        "flops": update_flops(policy, load.prompts, load.responses),
        "attention": attention_share(policy, load.prompts, load.responses),
    }


def processes() -> list[dict[str, Any]]:
    """Update seconds of real runs with one process and with two; none without vLLM."""
    if find_spec("vllm") is None:
        return []
    more = {1: ["strategy=single"], 2: ["strategy=fsdp", "trainer.devices=2"]}
    rows = []
    for count, overrides in more.items():
        steps = training_rows(["credit=grpo", "engine=vllm", *overrides], steps=6)[2:]
        rows.append(
            {
                "series": "processes",
                "size": count,
                "model": "tiny",
                "seconds": median(step["time/update_s"] for step in steps),
                "tokens": median(step["rollout/tokens"] for step in steps),
            }
        )
    return rows


def with_growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with the exponents that lead to it from the row before in its series."""
    for before, row in pairwise(rows):
        if before["series"] == row["series"]:
            step = math.log(row["size"] / before["size"])
            row["exponent"] = math.log(row["seconds"] / before["seconds"]) / step
            if "flops" in row:
                row["counted_exponent"] = math.log(row["flops"] / before["flops"]) / step
    return rows


def first_beyond_linear(rows: list[dict[str, Any]]) -> str:
    """What stops growing linearly first, in a sentence."""
    over = [row for row in rows if row.get("exponent", 0) > LINEAR and row["series"] != "processes"]
    if not over:
        return f"Nothing grows faster than size^{LINEAR}."
    row = min(over, key=lambda row: row["tokens"])
    return (
        f"First beyond size^{LINEAR}: {row['series']} at {row['size']:,}, as size^{row['exponent']:.2f} "
        f"(counted operations: size^{row['counted_exponent']:.2f}); attention is "
        f"{row['attention']:.0%} of the operations there."
    )


def table(rows: list[dict[str, Any]]) -> Table:
    """Seconds and exponents of every point."""
    output = Table(
        *("grows", "size", "model", "seconds", "tokens/s", "exponent", "counted", "attention"),
        title=TITLE,
        caption=first_beyond_linear(rows),
    )
    for row in rows:
        output.add_row(
            row["series"],
            f"{row['size']:,}",
            row["model"],
            f"{row['seconds']:.3f}",
            f"{row['tokens'] / row['seconds']:,.0f}",
            f"{row['exponent']:.2f}" if "exponent" in row else "",
            f"{row['counted_exponent']:.2f}" if "counted_exponent" in row else "",
            f"{row['attention']:.0%}" if "attention" in row else "",
        )
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Seconds against size, both logarithmic, with the slope of each; attention's share beside it."""
    share = axes.twinx()
    for series, color in (
        ("rollouts", "#4477aa"),
        ("length", "#ee6677"),
        ("processes", "#228833"),
    ):
        chosen = [row for row in rows if row["series"] == series]
        if not chosen:
            continue
        sizes, seconds = [r["size"] for r in chosen], [r["seconds"] for r in chosen]
        label = f"{series}: slope {slope(sizes, seconds):.2f}"
        axes.plot(sizes, seconds, "o-", markersize=3, color=color, label=label)
        if series == "length":
            attention = [row["attention"] for row in chosen]
            share.plot(sizes, attention, ":", color=color, linewidth=1)
    share.set(ylim=(0, 1), ylabel="attention's share of operations (dotted)")
    axes.set(xscale="log", yscale="log", xlabel="rollouts, tokens, processes", ylabel="update, s")
    axes.legend(fontsize=7)
