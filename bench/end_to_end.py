"""(d) Seconds of a rollout step by stage, beside TRL with the same kind of engine.

models/tiny on arithmetic: the same problems, samples, longest response and token budget, GRPO; the
learning rate is next to 0, so that responses keep their lengths. Our scoring and TRL's include what
either does between rewards and update; "other" is what its stages leave of a step.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from rich.markup import escape
from rich.table import Table
from training_run import training_rows

TITLE = "a rollout step, by stage"
STEPS, WARM_UP = 10, 3  # of which so many are left out
PROBLEMS, SAMPLES, TOKENS, BUDGET = 16, 8, 80, 8192  # as configs/training/tiny.yaml
STAGES = ("rollout", "reward", "score", "sync", "proof", "probe", "update", "other")


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per side; one that cannot run here says why."""
    steps, warm_up = (2, 1) if quick else (STEPS, WARM_UP)
    problems, samples, tokens = (2, 2, 16) if quick else (PROBLEMS, SAMPLES, TOKENS)
    sizes = [
        f"training.problems_per_step={problems}",
        f"training.problems_per_update={problems}",
        f"training.rollouts_per_problem={samples}",
        f"training.max_response_tokens={tokens}",
        f"training.token_budget={BUDGET}",
    ]
    rows = []
    for engine in ("hf",) if quick else ("hf", "vllm"):
        steps_measured = training_rows(["credit=grpo", f"engine={engine}", *sizes], steps)[warm_up:]
        rows.append(summary(f"rlrt, engine={engine}", [by_stage(row) for row in steps_measured]))
    for engine in ("generate",) if quick else ("generate", "vllm"):
        numbers = map(str, (steps, problems, samples, tokens, BUDGET))
        rows.append(trl_row(engine, list(numbers), warm_up))
    return rows


def by_stage(row: dict[str, float]) -> dict[str, float]:
    """A row of metrics.csv."""
    stages = {stage: row.get(f"time/{stage}_s", 0.0) for stage in STAGES[:-1]}
    return stages | {"step": row["time/step_s"], "tokens": row["rollout/tokens"]}


def trl_row(engine: str, numbers: list[str], warm_up: int) -> dict[str, Any]:
    """TRL's run in a process of its own."""
    script = str(Path(__file__).with_name("trl_run.py"))
    done = subprocess.run(
        [sys.executable, script, *numbers, engine], capture_output=True, text=True, timeout=600
    )
    side = f"TRL, {'generate()' if engine == 'generate' else 'vLLM colocated'}"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        return {"side": side, "note": re.sub(r"^\[rank\d+\]:?\s*", "", last)[:200]}
    return summary(side, json.loads(done.stdout.splitlines()[-1])[warm_up:])


def summary(side: str, steps: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the steps."""
    for step in steps:
        step["other"] = step["step"] - sum(step.get(stage, 0.0) for stage in STAGES[:-1])
    names = (*STAGES, "step", "tokens")
    return {"side": side, "steps": steps} | {
        name: median(step.get(name, 0.0) for step in steps) for name in names
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Medians of each stage, in seconds."""
    output = Table("", *STAGES, "step", "tokens", "tokens/s", title=f"{TITLE} (s)")
    for row in rows:
        if "note" in row:
            output.add_row(row["side"], escape(f"did not run: {row['note']}"))
            continue
        seconds = (f"{row[name]:.3f}" for name in (*STAGES, "step"))
        speed = f"{row['tokens'] / row['step']:,.0f}"
        output.add_row(row["side"], *seconds, f"{row['tokens']:,.0f}", speed)
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """A bar for each side, its stages one on the other."""
    measured = [row for row in rows if "note" not in row]
    names = [row["side"].replace(", ", "\n") for row in measured]
    bottom = [0.0] * len(measured)
    colors = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#ee6677", "#bbbbbb")
    for stage, color in zip(STAGES, colors, strict=True):
        heights = [row[stage] for row in measured]
        axes.bar(names, heights, bottom=bottom, color=color, label=stage)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    axes.set_ylabel("s per rollout step")
    axes.legend(fontsize=7)
