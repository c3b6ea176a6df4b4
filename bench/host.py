"""(h) A rollout step's work on the host at the study's size, by stage, and at a quarter of it.

2,048 responses of log-normal lengths, a tenth of them cut at 20,480 tokens; see ``host_step.py``. Each
size has a process of its own. No stage may grow faster than its tokens.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import marked
from matplotlib.axes import Axes
from rich.table import Table

TITLE = "host work of a rollout step"
SAMPLES, LIMIT, BUDGET = 8, 20_480, 24_576  # configs/training/study.yaml
PROBLEMS = (64, 256)
ASKED_S, ASKED_GIB = 60, 4  # on two cores, beyond the model
NEGLIGIBLE_S = 0.5  # of a stage at the full size: its growth is noise
FASTER = 1.25  # than the tokens, by which a stage may seem to grow


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per size."""
    if quick:
        return [step(problems, 4, 64, 256) for problems in (2, 8)]
    return [step(problems, SAMPLES, LIMIT, BUDGET) for problems in PROBLEMS]


def step(*numbers: int) -> dict[str, Any]:
    """Run one step in a child; sums over its stages, the stubs left out."""
    script = str(Path(__file__).with_name("host_step.py"))
    command = [sys.executable, script, *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    stages = row["stages"].items()
    row["seconds"] = sum(one["seconds"] for name, one in stages if name != "stub")
    row["cpu_s"] = sum(one["cpu_s"] for name, one in stages if name != "stub")
    row["gib"] = max(one["gib"] for _, one in stages)
    return row


def table(rows: list[dict[str, Any]]) -> Table:
    """Seconds and GiB of each stage at both sizes; how it grows is told from the cores' seconds."""
    small, large = rows
    times = large["tokens"] / small["tokens"]
    output = Table("", "s", "cores' s", "cores' s at 1/4", f"growth (tokens {times:.1f})", "GiB")
    output.title = f"{TITLE}: {large['tokens']:,} response tokens, {large['answers']}"
    for name, one in large["stages"].items():
        less = small["stages"].get(name, {"cpu_s": 0.0})["cpu_s"]
        growth = one["cpu_s"] / less if less else 0.0
        telling = one["cpu_s"] > NEGLIGIBLE_S
        output.add_row(
            name,
            f"{one['seconds']:.2f}",
            f"{one['cpu_s']:.2f}",
            f"{less:.2f}",
            marked(f"{growth:.1f}", growth < FASTER * times) if telling else "",
            f"{one['gib']:.2f}",
        )
    output.add_row(
        "all but the stubs",
        marked(f"{large['seconds']:.1f}", large["seconds"] <= ASKED_S),
        f"{large['cpu_s']:.1f}",
        f"{small['cpu_s']:.1f}",
        f"{large['cpu_s'] / small['cpu_s']:.1f}",
        marked(f"{large['gib']:.2f}", large["gib"] <= ASKED_GIB),
    )
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Seconds of each stage at the larger size."""
    stages = rows[-1]["stages"]
    names = [name for name in stages if name != "stub"]
    axes.barh(names, [stages[name]["seconds"] for name in names], color="#4477aa")
    axes.set_xlabel("s per rollout step, on the host")
    axes.invert_yaxis()
