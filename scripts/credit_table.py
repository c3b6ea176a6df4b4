"""Show what a credit assigner does to a hand-written group of rollouts.

python scripts/credit_table.py credit=rlrt credit.clip_radius=0.5 input=group.json [json=true]

``input`` holds {"step": 0, "rollouts": [{"group", "reward", "response"?, "engine_logprobs",
"student_logprobs", "teacher_logprobs" | null, "student_entropy" | null, "logprobs" | null}]}. With
``json=true`` only {"advantages", "distillation", "loss"} is printed; all numbers are float64.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rlrt.assembly.configuration import build, compose, stop_with_a_sentence
from rlrt.batch import Credit, ScoredBatch
from rlrt.errors import UserError
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate

PER_TOKEN = (
    "engine_logprobs",
    "student_logprobs",
    "teacher_logprobs",
    "student_entropy",
    "logprobs",
)


def read_group(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Step and rollouts of an input file; UserError naming what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"input is {path}, which cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error})") from error
    rollouts = content.get("rollouts") if isinstance(content, dict) else None
    if not isinstance(rollouts, list) or not rollouts:
        raise UserError(f"{path} is no JSON object with a list of rollouts")
    step = content.get("step", 0)
    if type(step) is not int or step < 0:
        raise UserError(f"{path}: step is {step!r}, it must be a whole number from 0")
    for number, rollout in enumerate(rollouts):
        if (wrong := what_is_wrong(rollout)) is not None:
            raise UserError(f"{path}: rollout {number} {wrong}")
    return step, rollouts


def what_is_wrong(rollout: Any) -> str | None:
    """The first thing a rollout lacks or has in another form; None for a sound one."""
    if not isinstance(rollout, dict):
        return "is no object"
    for name in ("group", "reward", "engine_logprobs", "student_logprobs"):
        if rollout.get(name) is None:
            return f"has no {name}"
    if type(rollout["group"]) is not int or not is_number(rollout["reward"]):
        return "has a group that is no whole number, or a reward that is no number"
    for name in PER_TOKEN:
        values = rollout.get(name)
        if values is None:
            continue
        if not isinstance(values, list) or not all(map(is_number, values)):
            return f"has {name} that are no list of finite numbers"
        if len(values) != len(rollout["student_logprobs"]):
            tokens = len(rollout["student_logprobs"])
            return f"has {len(values)} {name} and {tokens} student_logprobs"
    return None


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def padded(rollouts: list[dict[str, Any]], name: str) -> Tensor:
    """``[B, T]`` float64 of a per-token field, 0 where it is missing or the response has ended."""
    longest = max(len(rollout["student_logprobs"]) for rollout in rollouts)
    rows = [rollout.get(name) or [] for rollout in rollouts]
    return torch.tensor([row + [0.0] * (longest - len(row)) for row in rows], dtype=torch.float64)


def scored(rollouts: list[dict[str, Any]]) -> ScoredBatch:
    """The batch as a credit assigner would see it in a run."""
    lengths = torch.tensor([len(rollout["student_logprobs"]) for rollout in rollouts])
    return ScoredBatch(
        group_B=torch.tensor([int(rollout["group"]) for rollout in rollouts]),
        rewards_B=torch.tensor([float(r["reward"]) for r in rollouts], dtype=torch.float64),
        response_mask_BT=torch.arange(int(lengths.max()))[None] < lengths[:, None],
        engine_logprobs_BT=padded(rollouts, "engine_logprobs"),
        student_logprobs_BT=padded(rollouts, "student_logprobs"),
        student_entropy_BT=padded(rollouts, "student_entropy"),
        teacher_logprobs_BT=padded(rollouts, "teacher_logprobs"),
        teacher_scored_B=torch.tensor([r.get("teacher_logprobs") is not None for r in rollouts]),
        responses=tuple(str(rollout.get("response") or "") for rollout in rollouts),
    )


def losses(
    batch: ScoredBatch, credit: Credit, logprobs_BT: Tensor, surrogate: ClippedSurrogate
) -> dict[str, float]:
    """The surrogate of the group under each aggregation, and with the rollout correction."""
    corrected = surrogate
    plain = ClippedSurrogate(surrogate.clip_low, surrogate.clip_high, surrogate.dual_clip, None)

    def total(loss: ClippedSurrogate, kind: str) -> float:
        token_loss_BT = loss(
            logprobs_BT, batch.student_logprobs_BT, batch.engine_logprobs_BT, credit.advantages_BT
        )
        weights_BT = Aggregation(kind)(batch.response_mask_BT, token_loss_BT.dtype)
        return float((token_loss_BT * weights_BT).sum())

    return {
        "token_mean": total(plain, "token_mean"),
        "sequence_mean": total(plain, "sequence_mean"),
        "token_mean_corrected": total(corrected, "token_mean"),
    }


def per_response(values_BT: Tensor, mask_BT: Tensor) -> list[list[float]]:
    """Ragged rows without the padding."""
    return [values[mask].tolist() for values, mask in zip(values_BT, mask_BT, strict=True)]


def print_table(rollouts: list[dict[str, Any]], batch: ScoredBatch, credit: Credit) -> None:
    """One line per token: log-probs of both views, credit, and credit over the advantage."""
    table = Table("rollout", "token", "student", "teacher", "credit", "multiplier", box=None)
    for row, rollout in enumerate(rollouts):
        advantage = None if credit.advantages_B is None else float(credit.advantages_B[row])
        for t in range(len(rollout["student_logprobs"])):
            value = float(credit.advantages_BT[row, t])
            teacher = rollout.get("teacher_logprobs")
            table.add_row(
                f"{row} (reward {rollout['reward']:g})" if t == 0 else "",
                str(t),
                f"{rollout['student_logprobs'][t]:.4f}",
                f"{teacher[t]:.4f}" if teacher else "-",
                f"{value:+.4f}",
                f"{value / advantage:.4f}" if advantage else "-",
            )
    console = Console()
    console.print(table)
    for name, value in credit.metrics.items():
        console.print(f"{name}: {value:.6g}", highlight=False)


def main(words: list[str]) -> None:
    own = dict(word.split("=", 1) for word in words if word.startswith(("input=", "json=")))
    if "input" not in own:
        raise UserError("input=<file.json> is missing")
    if own.get("json", "false").lower() not in ("true", "false"):
        raise UserError(f"json is {own['json']}, it must be true or false")
    config = compose([word for word in words if not word.startswith(("input=", "json="))])
    assigner, surrogate = build(config.credit), build(config.loss)
    step, rollouts = read_group(Path(own["input"]))
    batch = scored(rollouts)
    credit = assigner(batch, step)

    result: dict[str, Any] = {
        "advantages": per_response(credit.advantages_BT, batch.response_mask_BT),
        "distillation": None
        if credit.distillation_BT is None
        else per_response(credit.distillation_BT, batch.response_mask_BT),
    }
    if all(rollout.get("logprobs") is not None for rollout in rollouts):
        result["loss"] = losses(batch, credit, padded(rollouts, "logprobs"), surrogate)
    if own.get("json", "false").lower() == "true":
        print(json.dumps(result))
        return
    print_table(rollouts, batch, credit)
    for name, value in result.get("loss", {}).items():
        print(f"loss/{name}: {value:.12g}")


if __name__ == "__main__":
    with stop_with_a_sentence():
        main(sys.argv[1:])
