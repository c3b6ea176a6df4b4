"""The credit and the losses of rollouts written by hand, computed by the code that trains.

A JSON file of rollouts becomes what a credit assigner sees in a run, and the losses are the
training's own objective on the given log-probs and logits.
"""

import json
import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner
from rlrt.errors import UserError
from rlrt.loss.divergences import SampledToken, kl
from rlrt.loss.objective import Aggregation, Kind, MicroBatch, Objective, mean_one
from rlrt.loss.policy_loss import PolicyLoss

NUMBERS = (
    "engine_logprobs",
    "student_logprobs",
    "teacher_logprobs",
    "student_entropy",
    "teacher_entropy",
    "divergence",
    "logprobs",
)
LOGITS = ("student_logits", "teacher_logits")
TEACHER = ("teacher_logprobs", "teacher_entropy", "teacher_logits", "divergence")
MAX_WHOLE = 2**63 - 1  # what a long tensor holds


@dataclass(frozen=True)
class Handwritten:
    """One rollout. ``values`` holds its fields per token, given or computed, in float64: ``[T]``, or
    ``[T, V]`` of logits at the sampling temperature; what is neither given nor computable is absent.
    """

    group: int
    reward: float
    penalty: float
    response: str | None
    tokens: list[str] | None
    values: dict[str, Tensor]

    @property
    def length(self) -> int:
        return len(self.values["student_logprobs"])

    @property
    def has_context(self) -> bool:
        """Something of a teacher is known; an empty response has none in a run either."""
        return self.length > 0 and any(name in self.values for name in TEACHER)


def read_rollouts(path: Path, temperature: float) -> tuple[int, list[Handwritten]]:
    """Rollout step and rollouts of a file; UserError naming the first thing that is wrong with it.

    Logits are divided by ``temperature``. Log-probs, entropies and KL(student || teacher) that are
    missing follow from them where they can; missing engine log-probs are the student's.
    """
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
    if not _is_whole(step):
        raise UserError(f"{path}: step is {step!r}, it must be a whole number from 0")
    vocabulary: int | None = None
    for number, rollout in enumerate(rollouts):
        wrong = _wrong_alone(rollout) or _wrong_per_token(rollout)
        if wrong is None:
            sizes = [len(rollout[name][0]) for name in LOGITS if rollout.get(name)]
            vocabulary = vocabulary or next(iter(sizes), None)
            wrong = _wrong_vocabulary(rollout, vocabulary)
        if wrong is not None:
            raise UserError(f"{path}: rollout {number} {wrong}")
    return step, [_completed(rollout, vocabulary or 0, temperature) for rollout in rollouts]


def _wrong_alone(rollout: Any) -> str | None:
    """What is wrong with a rollout, its values per token left aside; None for a sound one."""
    if not isinstance(rollout, dict):
        return "is no object"
    for name in ("group", "reward"):
        if rollout.get(name) is None:
            return f"has no {name}"
    if not _is_whole(rollout["group"], -MAX_WHOLE) or not _is_number(rollout["reward"]):
        return "has a group that is no whole number, or a reward that is no number"
    penalty = rollout.get("penalty")
    if penalty is not None and not (_is_number(penalty) and penalty <= 0):
        return "has a penalty that is no number up to 0"
    if not isinstance(rollout.get("response"), str | None):
        return "has a response that is no text"
    if rollout.get("student_logprobs") is None and (
        rollout.get("student_logits") is None or rollout.get("response_ids") is None
    ):
        return "has no student_logprobs, nor student_logits and response_ids to compute them"
    return None


def _wrong_per_token(rollout: dict[str, Any]) -> str | None:
    """The first list that is malformed or of another length than the student's."""
    first = "student_logprobs" if rollout.get("student_logprobs") is not None else LOGITS[0]
    given = [name for name in FORMS if rollout.get(name) is not None]
    for name in sorted(given, key=lambda name: name != first):
        values, (wrong, is_sound) = rollout[name], FORMS[name]
        if not isinstance(values, list) or not is_sound(values):
            return f"has {name} that {wrong}"
        if len(values) != len(rollout[first]):
            return f"has {len(values)} {name} and {len(rollout[first])} {first}"
    return None


def _wrong_vocabulary(rollout: dict[str, Any], vocabulary: int | None) -> str | None:
    """Logits or ids that do not fit the vocabulary, which is as large as the file's first logits."""
    if vocabulary is None:
        return None
    for name in LOGITS:
        if (logits := rollout.get(name)) and len(logits[0]) != vocabulary:
            return f"has {name} over {len(logits[0])} ids, others are over {vocabulary}"
    if any(i >= vocabulary for i in rollout.get("response_ids") or []):
        return f"has response_ids that its {vocabulary} logits do not reach"
    return None


def _is_matrix(rows: list[Any]) -> bool:
    return (
        all(isinstance(row, list) and row and all(map(_is_number, row)) for row in rows)
        and len({len(row) for row in rows}) <= 1
    )


def _is_whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= MAX_WHOLE


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that float64 holds."""
    return (type(value) is float and math.isfinite(value)) or (
        type(value) is int and abs(value) <= 1e300
    )


FORMS: dict[str, tuple[str, Callable[[list[Any]], bool]]] = {  # of the lists per token
    **dict.fromkeys(
        NUMBERS, ("are no list of finite numbers", lambda values: all(map(_is_number, values)))
    ),
    **dict.fromkeys(LOGITS, ("are no list of equally long lists of finite numbers", _is_matrix)),
    "response_ids": ("are no list of ids", lambda ids: all(map(_is_whole, ids))),
    "tokens": ("are no list of texts", lambda texts: all(isinstance(t, str) for t in texts)),
}


def _completed(rollout: dict[str, Any], vocabulary: int, temperature: float) -> Handwritten:
    values = {
        name: torch.tensor(rollout[name], dtype=torch.float64)
        for name in NUMBERS
        if rollout.get(name) is not None
    }
    if rollout.get("response_ids") is not None:
        values["response_ids"] = torch.tensor(rollout["response_ids"], dtype=torch.long)
    for view in ("student", "teacher"):
        if (given := rollout.get(f"{view}_logits")) is None:
            continue
        logits_TV = torch.tensor(given, dtype=torch.float64).reshape(-1, vocabulary or 1)
        values[f"{view}_logits"] = logits_TV = logits_TV / temperature
        logprobs_TV = logits_TV.log_softmax(-1)
        values.setdefault(f"{view}_entropy", torch.special.entr(logprobs_TV.exp()).sum(-1))
        if "response_ids" in values:
            chosen_T = logprobs_TV.gather(-1, values["response_ids"][:, None]).squeeze(-1)
            values.setdefault(f"{view}_logprobs", chosen_T)
    if all(name in values for name in LOGITS):
        values.setdefault("divergence", kl(values["student_logits"], values["teacher_logits"]))
    values.setdefault("engine_logprobs", values["student_logprobs"])
    return Handwritten(
        group=rollout["group"],
        reward=float(rollout["reward"]),
        penalty=float(rollout.get("penalty") or 0),
        response=rollout.get("response"),
        tokens=rollout.get("tokens"),
        values=values,
    )


def padded(rollouts: Sequence[Handwritten], name: str, kept_B: Tensor | None = None) -> Tensor:
    """``[B, T]`` float64 of a field; 0 in padding, where it is not known, and in rows not kept."""
    values_BT = torch.zeros(len(rollouts), max(r.length for r in rollouts), dtype=torch.float64)
    for row, rollout in enumerate(rollouts):
        if name in rollout.values and (kept_B is None or kept_B[row]):
            values_BT[row, : rollout.length] = rollout.values[name]
    return values_BT


def handwritten_batch(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, step: int
) -> ScoredBatch:
    """The batch of a run: values of either view only in rows where the method says that it reads
    them, the divergence only for a method that says so.
    """
    outcomes = Outcomes(
        group_B=torch.tensor([rollout.group for rollout in rollouts]),
        rewards_B=torch.tensor([r.reward for r in rollouts], dtype=torch.float64),
        penalty_B=torch.tensor([r.penalty for r in rollouts], dtype=torch.float64),
        responses=tuple(rollout.response or "" for rollout in rollouts),
    )
    lengths_B = torch.tensor([rollout.length for rollout in rollouts])
    reads_B, distills_B = assigner.reads_teacher(outcomes, step), assigner.distills(outcomes, step)
    context_B = torch.tensor([rollout.has_context for rollout in rollouts]) & (reads_B | distills_B)
    scored_B = context_B & reads_B
    student_B = assigner.reads_student(outcomes, context_B, step)
    return ScoredBatch(
        **vars(outcomes),
        response_mask_BT=torch.arange(int(lengths_B.max()))[None] < lengths_B[:, None],
        engine_logprobs_BT=padded(rollouts, "engine_logprobs"),
        student_scored_B=student_B,
        student_logprobs_BT=padded(rollouts, "student_logprobs", student_B),
        student_entropy_BT=padded(rollouts, "student_entropy", student_B),
        has_context_B=context_B,
        teacher_scored_B=scored_B,
        teacher_logprobs_BT=padded(rollouts, "teacher_logprobs", scored_B),
        teacher_entropy_BT=padded(rollouts, "teacher_entropy", scored_B),
        divergence_BT=padded(rollouts, "divergence", scored_B & assigner.reads_divergence),
    )


FOLLOWS_FROM = {
    "student_entropy": "student_logits",
    "teacher_logprobs": "teacher_logits and response_ids",
    "teacher_entropy": "teacher_logits",
    "divergence": "student_logits and teacher_logits",
}


@dataclass(frozen=True)
class Trial:
    """What a method does to rollouts that form one update.

    ``distillation_BT``: weights as an update has them, scaled to a mean of 1 where the method says
    so. ``divergence_BT``: the divergence that they weigh, else KL(student || teacher) where the
    method reads it; NaN elsewhere. ``metrics`` are the credit's averages, ``losses`` those that could
    be computed.
    """

    batch: ScoredBatch
    credit: Credit
    distillation_BT: Tensor | None
    divergence_BT: Tensor | None
    metrics: dict[str, float]
    losses: dict[str, float]

    @property
    def multipliers_BT(self) -> Tensor | None:
        """Credit over the rollout's advantage, NaN where that is 0 and where a token is distilled
        instead; None where the method has no such advantage.
        """
        if self.credit.advantages_B is None:
            return None
        advantages_B1, credit_BT = self.credit.advantages_B[:, None], self.credit.advantages_BT
        none_BT = (advantages_B1 == 0) | ~self.batch.response_mask_BT
        if self.distillation_BT is not None:
            none_BT = none_BT | ((self.distillation_BT > 0) & (credit_BT == 0))
        return (credit_BT / advantages_B1).masked_fill(none_BT, torch.nan)


def try_out(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, loss: PolicyLoss, step: int
) -> Trial:
    """The trial at a rollout step; UserError where the method reads what is not known.

    The surrogate needs ``logprobs`` of every rollout. Without them the policy is taken as it was
    scored, so that the distillation loss has no importance weight.
    """
    batch, credit = _assign(rollouts, assigner, step)
    student_BT = padded(rollouts, "student_logprobs")
    known_B = torch.tensor(["logprobs" in rollout.values for rollout in rollouts])
    logprobs_BT = torch.where(known_B[:, None], padded(rollouts, "logprobs"), student_BT)
    losses = _surrogates(batch, credit, logprobs_BT, student_BT, loss) if known_B.all() else {}
    weights_BT = credit.distillation_BT
    if weights_BT is not None and credit.relative_distillation:
        weights_BT = mean_one(weights_BT)
    visible_BT = None
    if weights_BT is not None:
        distilled_BT = weights_BT > 0
        divergence_BT = _divergences(rollouts, assigner, distilled_BT.any(1))
        if divergence_BT is not None:
            mean_BT = distilled_BT / distilled_BT.sum().clamp(min=1).double()
            tokens = _micro_batch(batch, credit, student_BT, mean_BT, weights_BT)
            objective = Objective(
                loss, Aggregation(), assigner.divergence, assigner.importance_limit
            )
            total, _ = objective.distillation(
                tokens, divergence_BT[distilled_BT], logprobs_BT[distilled_BT]
            )
            losses["distillation"] = float(total)
            visible_BT = divergence_BT.masked_fill(~distilled_BT, torch.nan)
    elif assigner.reads_divergence:
        read_BT = batch.teacher_scored_B[:, None] & batch.response_mask_BT
        visible_BT = batch.divergence_BT.masked_fill(~read_BT, torch.nan)
    metrics = {
        name: float(values.double().mean())
        for name, values in credit.metrics.items()
        if len(values)
    }
    return Trial(batch, credit, weights_BT, visible_BT, metrics, losses)


def _micro_batch(
    batch: ScoredBatch,
    credit: Credit,
    student_BT: Tensor,
    weights_BT: Tensor,
    distillation_BT: Tensor,
) -> MicroBatch:
    """All rollouts as one micro-batch, with these weights of the aggregation."""
    mask_BT = batch.response_mask_BT
    response_BT = torch.arange(len(mask_BT))[:, None].expand_as(mask_BT)
    all_N = torch.ones(int(mask_BT.sum()), dtype=torch.bool)
    return MicroBatch(
        rows=list(range(len(mask_BT))),
        ids_N=all_N.long(),  # the objective gets log-probs, and looks nothing up by id
        response_N=response_BT[mask_BT],
        weights_N=weights_BT[mask_BT],
        sampled_N=all_N,
        student_scored_N=all_N,
        student_logprobs_N=student_BT[mask_BT],
        engine_logprobs_N=batch.engine_logprobs_BT[mask_BT],
        advantages_N=credit.advantages_BT[mask_BT],
        distillation_N=distillation_BT[mask_BT],
    )


def _surrogates(
    batch: ScoredBatch, credit: Credit, logprobs_BT: Tensor, student_BT: Tensor, loss: PolicyLoss
) -> dict[str, float]:
    """The surrogate over the tokens that count, as two aggregations, and with the correction."""
    mask_BT = batch.response_mask_BT
    counted_BT = mask_BT if credit.counted_BT is None else credit.counted_BT
    uncorrected = copy(loss)
    uncorrected.rollout_correction_limit = None

    def total(loss: PolicyLoss, kind: Kind) -> float:
        aggregation = Aggregation(kind)
        weights_BT = aggregation(counted_BT, torch.float64)
        tokens = _micro_batch(batch, credit, student_BT, weights_BT, torch.zeros_like(student_BT))
        logprobs_n = logprobs_BT[mask_BT][tokens.credited_N]
        value, _ = Objective(loss, aggregation).surrogate(tokens, logprobs_n)
        return float(value) + 0.0  # no -0.0

    return {
        "token_mean": total(uncorrected, "token_mean"),
        "sequence_mean": total(uncorrected, "sequence_mean"),
        "token_mean_corrected": total(loss, "token_mean"),
    }


class WatchedBatch(ScoredBatch):
    """A scored batch that knows which of its fields a credit assigner has read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seen", set())  # the dataclass is frozen

    def __getattribute__(self, name: str) -> Any:
        if "seen" in (own := object.__getattribute__(self, "__dict__")):
            own["seen"].add(name)
        return object.__getattribute__(self, name)


def _assign(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, step: int
) -> tuple[ScoredBatch, Credit]:
    """The batch and its credit; UserError where the method read something that is not known."""
    batch = handwritten_batch(rollouts, assigner, step)
    # What is not known is 0 in the batch: a method that reads it would return credit that looks right.
    watched = WatchedBatch(**vars(batch))
    credit = assigner(watched, step)
    seen, method = vars(watched)["seen"], type(assigner).__name__
    for row, rollout in enumerate(rollouts):
        if "responses" in seen and rollout.response is None:
            raise UserError(
                f"{method} reads the response, and rollout {row} has none: give its text"
            )
        for name, source in FOLLOWS_FROM.items():
            if f"{name}_BT" not in seen or name in rollout.values or rollout.length == 0:
                continue
            scored_B = batch.teacher_scored_B
            if name == "student_entropy":
                scored_B = batch.student_scored_B
            if scored_B[row] and (name != "divergence" or assigner.reads_divergence):
                raise UserError(
                    f"{method} reads {name}, and rollout {row} has none: give it, or {source}"
                )
    return batch, credit


def _divergences(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, distilled_B: Tensor
) -> Tensor | None:
    """``[B, T]`` of the method's divergence in distilled rollouts, 0 elsewhere. None where none of
    them has logits; UserError where some have, or where credit.top_k is above the vocabulary.
    """
    divergence = assigner.divergence
    assert divergence is not None, f"{type(assigner).__name__} distills and names no divergence"
    sizes = [r.values[name].shape[-1] for r in rollouts for name in LOGITS if name in r.values]
    if sizes and divergence.top_k is not None and divergence.top_k > max(sizes):
        raise UserError(
            f"credit.top_k is {divergence.top_k}, it must be null or lie in [1, {max(sizes)}], as "
            "many ids as the input has logits for"
        )
    rows = distilled_B.nonzero().flatten().tolist()
    complete = [row for row in rows if all(name in rollouts[row].values for name in LOGITS)]
    if rows and not complete:
        return None
    if incomplete := sorted(set(rows) - set(complete)):
        raise UserError(f"rollout {incomplete[0]} is distilled, and lacks {' or '.join(LOGITS)}")
    values_BT = torch.zeros_like(padded(rollouts, "student_logprobs"))
    for row in rows:
        values, length = rollouts[row].values, rollouts[row].length
        if isinstance(divergence, SampledToken) and "response_ids" not in values:
            raise UserError(f"credit.sampled_token reads response_ids, and rollout {row} has none")
        # -1: whatever looks up an id that is not there fails
        ids_T = values.get("response_ids", torch.full((length,), -1))
        values_BT[row, :length] = divergence(
            values["student_logits"], values["teacher_logits"], ids_T
        )
    return values_BT
