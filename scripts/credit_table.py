"""Show what a credit assigner does to a hand-written group of rollouts.

python scripts/credit_table.py credit=rlrt credit.clip_radius=0.5 input=group.json [json=true]
    [picture=group.svg]

``input`` holds {"step": 0, "rollouts": [...]}, each rollout {"group", "reward", "student_logprobs"}
and what its method reads: "engine_logprobs", "teacher_logprobs", "student_entropy",
"teacher_entropy", "divergence", "logprobs" and "response_ids" of one value per token,
"student_logits" and "teacher_logits" of [T][V], "penalty", "response" (text), "tokens" (texts, for
the picture). What follows from logits and ids may be left out; null is absent, and a rollout
without anything of a teacher has no context.

``json=true`` prints only {"advantages", "distillation", "loss"} in float64; ``picture`` saves the
multipliers per token, and the distillation weights, as a .png or .svg.
"""

import json
import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from rlrt.analysis.credit_table import Handwritten, Trial, read_rollouts, try_out
from rlrt.analysis.token_picture import Panel, require_picture_path, save_picture
from rlrt.config.command_line import command_options, print_help, report_errors
from rlrt.config.compose import build, compose
from rlrt.errors import UserError

OPTIONS = ("input", "json", "picture")


def per_response(values_BT: Tensor, mask_BT: Tensor) -> list[list[float]]:
    """Ragged rows without the padding."""
    return [values[mask].tolist() for values, mask in zip(values_BT, mask_BT, strict=True)]


def only_distilled(weights_BT: Tensor) -> Tensor:
    """Distillation weights, NaN where there is none."""
    return weights_BT.masked_fill(weights_BT == 0, float("nan"))


def print_table(rollouts: Sequence[Handwritten], trial: Trial) -> None:
    """One line per token: log-probs of both views, credit, credit over the advantage; distillation
    weight and divergence where the method has them.
    """
    columns = {"multiplier": trial.multipliers_BT}
    if trial.distillation_BT is not None:
        columns["distillation"] = only_distilled(trial.distillation_BT)
    if trial.divergence_BT is not None:
        columns["divergence"] = trial.divergence_BT
    table = Table("rollout", "token", "student", "teacher", "credit", *columns, box=None)

    def formatted(values: Tensor | None, *index: int) -> str:
        value = float("nan") if values is None else float(values[index])
        return "-" if isnan(value) else f"{value:.4f}"

    for row, rollout in enumerate(rollouts):
        for t in range(rollout.length):
            table.add_row(
                f"{row} (reward {rollout.reward:g})" if t == 0 else "",
                escape(f"{t} {rollout.tokens[t]!r}") if rollout.tokens else str(t),
                formatted(rollout.values["student_logprobs"], t),
                formatted(rollout.values.get("teacher_logprobs"), t),
                f"{trial.credit.advantages_BT[row, t]:+.4f}",
                *(formatted(values_BT, row, t) for values_BT in columns.values()),
            )
    console = Console(width=120)
    console.print(table)
    for name, value in trial.metrics.items():
        console.print(f"{name}: {value:.6g}", highlight=False)
    for name, value in trial.losses.items():
        console.print(f"loss/{name}: {value:.12g}", highlight=False)


def draw(path: Path, rollouts: Sequence[Handwritten], trial: Trial) -> None:
    """Save the multipliers, or the credit where there is no advantage to compare it with, and the
    distillation weights.
    """
    credit, weights_BT = trial.credit, trial.distillation_BT
    panels = []
    if trial.multipliers_BT is not None:
        panels.append(Panel("credit / advantage", trial.multipliers_BT, center=1.0))
    elif weights_BT is None or credit.advantages_BT.any():
        panels.append(Panel("credit", credit.advantages_BT, center=0.0))
    if weights_BT is not None:
        panels.append(Panel("distillation weight", only_distilled(weights_BT), center=None))
    several = len({rollout.group for rollout in rollouts}) > 1
    labels = []
    for row, rollout in enumerate(rollouts):
        words = [f"group {rollout.group}"] if several else []
        words += [f"rollout {row}", f"r = {rollout.reward:g}"]
        if credit.advantages_B is not None:
            words.append(f"A = {credit.advantages_B[row]:+.3f}")
        labels.append("   ".join(words))
    texts = [rollout.tokens for rollout in rollouts]
    save_picture(path, panels, trial.batch.response_mask_BT, labels, texts)


def main(words: list[str]) -> None:
    """Run the command; UserError for a word or an input that cannot be used."""
    if print_help(words, __doc__ or ""):
        return
    options, rest = command_options(words, OPTIONS)
    if "input" not in options:
        raise UserError("input=<file.json> is missing")
    as_json = options.get("json", "false").lower()
    if as_json not in ("true", "false"):
        raise UserError(f"json is {options['json']}, it must be true or false")
    picture = require_picture_path(Path(options["picture"])) if "picture" in options else None
    config = compose(list(rest), command_options=OPTIONS)
    assigner, loss = build(config.credit), build(config.loss)
    step, rollouts = read_rollouts(Path(options["input"]), build(config.training).temperature)
    trial = try_out(rollouts, assigner, loss, step)

    mask_BT, weights_BT = trial.batch.response_mask_BT, trial.distillation_BT
    result: dict[str, Any] = {
        "advantages": per_response(trial.credit.advantages_BT, mask_BT),
        "distillation": None if weights_BT is None else per_response(weights_BT, mask_BT),
        **({"loss": trial.losses} if trial.losses else {}),
    }
    try:
        text = json.dumps(result, allow_nan=False)
    except ValueError as error:
        raise UserError(
            f"the credit or loss of {options['input']} is no finite number: its numbers are too far apart"
        ) from error
    if picture is not None:
        draw(picture, rollouts, trial)
    print(text) if as_json == "true" else print_table(rollouts, trial)


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
