"""One trial of a method: credit and losses of handwritten rollouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlrt.analysis.handwritten import LOGITS, Handwritten, padded, scored_batch
from rlrt.batch import Credit, ScoredBatch
from rlrt.credit.assigner import CreditAssigner
from rlrt.errors import UserError
from rlrt.loss.aggregation import Aggregation, mean_one
from rlrt.loss.divergences import SampledToken
from rlrt.loss.policy_loss import PolicyLoss, bounded_exp

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
    mask_BT, student_BT = batch.response_mask_BT, padded(rollouts, "student_logprobs")
    known_B = torch.tensor(["logprobs" in rollout.values for rollout in rollouts])
    logprobs_BT = torch.where(known_B[:, None], padded(rollouts, "logprobs"), student_BT)
    losses = _surrogate(batch, credit, logprobs_BT, student_BT, loss) if known_B.all() else {}
    weights_BT = credit.distillation_BT
    if weights_BT is not None and credit.relative_distillation:
        weights_BT = mean_one(weights_BT)
    shown_BT = divergence_BT = None
    if weights_BT is not None:
        distilled_BT = weights_BT > 0
        divergence_BT = _divergences(rollouts, assigner, distilled_BT.any(1))
        if divergence_BT is not None:
            factor_BT = weights_BT * loss.correction(student_BT, batch.engine_logprobs_BT)
            if (limit := assigner.importance_limit) is not None:
                factor_BT = factor_BT * bounded_exp(logprobs_BT - student_BT).clamp(max=limit)
            total = (factor_BT * divergence_BT)[distilled_BT].sum()
            losses["distillation"] = float(total / distilled_BT.sum().clamp(min=1))
            shown_BT = divergence_BT.masked_fill(~distilled_BT, torch.nan)
    elif assigner.reads_divergence:
        read_BT = batch.teacher_scored_B[:, None] & mask_BT
        shown_BT = batch.divergence_BT.masked_fill(~read_BT, torch.nan)
    metrics = {
        name: float(values.double().mean())
        for name, values in credit.metrics.items()
        if len(values)
    }
    return Trial(batch, credit, weights_BT, shown_BT, metrics, losses)


class WatchedBatch(ScoredBatch):
    """A scored batch that knows which of its fields a credit assigner has read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seen", set())

    def __getattribute__(self, name: str) -> Any:
        if "seen" in (own := object.__getattribute__(self, "__dict__")):
            own["seen"].add(name)
        return object.__getattribute__(self, name)


def _assign(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, step: int
) -> tuple[ScoredBatch, Credit]:
    """The batch and its credit; UserError where the method read something that is not known."""
    batch = scored_batch(rollouts, assigner, step)
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
            if _is_computed(name, batch, row, assigner):
                raise UserError(
                    f"{method} reads {name}, and rollout {row} has none: give it, or {source}"
                )
    return batch, credit


def _is_computed(name: str, batch: ScoredBatch, row: int, assigner: CreditAssigner) -> bool:
    """Whether a run would compute this value in this row for the method."""
    if name == "student_entropy":
        return bool(batch.student_scored_B[row])
    return bool(batch.teacher_scored_B[row]) and (name != "divergence" or assigner.reads_divergence)


def _divergences(
    rollouts: Sequence[Handwritten], assigner: CreditAssigner, distilled_B: Tensor
) -> Tensor | None:
    """``[B, T]`` of the method's divergence in distilled rollouts, 0 elsewhere. None where none of
    them has logits; UserError where some have, or where credit.top_k is above the vocabulary.
    """
    divergence = assigner.divergence
    assert divergence is not None, f"{type(assigner).__name__} distils and names no divergence"
    sizes = [r.values[name].shape[-1] for r in rollouts for name in LOGITS if name in r.values]
    if sizes and divergence.top_k is not None and divergence.top_k > max(sizes):
        raise UserError(
            f"credit.top_k is {divergence.top_k}, it must be null or lie in [1, {max(sizes)}], as "
            "many ids as the input has logits for"
        )
    rows = distilled_B.nonzero().flatten().tolist()
    whole = [row for row in rows if all(name in rollouts[row].values for name in LOGITS)]
    if rows and not whole:
        return None
    if lacking := sorted(set(rows) - set(whole)):
        raise UserError(f"rollout {lacking[0]} is distilled, and lacks {' or '.join(LOGITS)}")
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


def _surrogate(
    batch: ScoredBatch, credit: Credit, logprobs_BT: Tensor, student_BT: Tensor, loss: PolicyLoss
) -> dict[str, float]:
    """The surrogate over the tokens that count, as two aggregations, and with the correction."""
    mask_BT = batch.response_mask_BT
    counted_BT = mask_BT if credit.counted_BT is None else credit.counted_BT
    response_BT = torch.arange(len(mask_BT))[:, None].expand_as(mask_BT)
    student_N, engine_N = student_BT[mask_BT], batch.engine_logprobs_BT[mask_BT]
    advantages_N, response_N = credit.advantages_BT[mask_BT], response_BT[mask_BT]
    plain_N = loss.token_loss(logprobs_BT[mask_BT], student_N, advantages_N, response_N)

    def total(token_loss_N: Tensor, kind: str) -> float:
        weights_N = Aggregation(kind)(counted_BT, torch.float64)[mask_BT]
        return float((token_loss_N * weights_N).sum()) + 0.0  # no -0.0

    return {
        "token_mean": total(plain_N, "token_mean"),
        "sequence_mean": total(plain_N, "sequence_mean"),
        "token_mean_corrected": total(plain_N * loss.correction(student_N, engine_N), "token_mean"),
    }
