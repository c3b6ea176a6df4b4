"""What an optimizer update minimizes: the value and the gradient for one micro-batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from rlrt import distributed
from rlrt.loss.divergences import Divergence
from rlrt.loss.policy_loss import PolicyLoss, bounded_exp
from rlrt.validation import validated

SUMS = ("surrogate", "clipped", "ratio", "tokens", "distillation", "divergence", "distilled")


Kind = Literal["token_mean", "sequence_mean", "constant_length"]


def mean_one(weights_BT: Tensor) -> Tensor:
    """Weights scaled to a mean of 1 over those above 0, on all ranks; all stay 0 where none is."""
    count_and_sum = torch.stack([(weights_BT > 0).sum().double(), weights_BT.double().sum()])
    count, total = distributed.all_reduce_sum(count_and_sum).tolist()
    return weights_BT * (count / total) if total > 0 else weights_BT


class Aggregation:
    """Weights ``[B, T]`` of the token losses of one update, from the mask of tokens that count.

    The loss is the plain sum of ``weight * token loss`` over all micro-batches and ranks: no split of
    the update can change it, since the denominators are counted over all ranks before it. Collective.

    ``token_mean``: 1 / all response tokens of the update. ``sequence_mean``: each response's own mean,
    averaged over responses. ``constant_length``: 1 / (responses * ``constant_length``)
    (arXiv:2503.20783, §3.2). Responses of which no token counts add nothing to any denominator.
    """

    @validated("aggregation")
    def __init__(
        self,
        kind: Kind = "token_mean",
        constant_length: PositiveInt | None = None,
    ) -> None:
        if (kind == "constant_length") != (constant_length is not None):
            raise ValueError(
                f"aggregation.constant_length is {constant_length}, it must be set with "
                f"kind=constant_length and only there (kind is {kind})"
            )
        self.kind = kind
        self.constant_length = constant_length

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Weights ``[B, T]`` that are 0 outside the mask; an update without a token gives all 0."""
        length_B1 = mask_BT.sum(1, keepdim=True)
        counts = distributed.all_reduce_sum(
            torch.stack([length_B1.sum(), (length_B1 > 0).sum()])
        ).clamp(min=1)
        tokens, responses = counts.tolist()
        mask_BT = mask_BT.to(dtype)
        if self.kind == "token_mean":
            return mask_BT / tokens
        if self.kind == "sequence_mean":
            return mask_BT / (length_B1.clamp(min=1) * responses)
        assert self.constant_length is not None
        return mask_BT / (responses * self.constant_length)


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of an update, as flat tokens ``[N]`` on the policy's device, row by row."""

    rows: list[int]
    ids_N: Tensor
    response_N: Tensor  # which of ``rows`` each token belongs to
    weights_N: Tensor  # of the aggregation
    sampled_N: Tensor  # bool; the policy did not choose the others, it only reads them
    student_scored_N: Tensor  # bool
    student_logprobs_N: Tensor
    engine_logprobs_N: Tensor
    advantages_N: Tensor
    distillation_N: Tensor

    @cached_property
    def credited_N(self) -> Tensor:
        """``[N]`` bool: the sampled tokens of responses that have an advantage.

        Whole responses, since some losses need all tokens of one.
        """
        return self.of_responses(self.advantages_N != 0) & self.sampled_N

    @cached_property
    def distilled_N(self) -> Tensor:
        """``[N]`` bool: the tokens whose divergence is part of the loss."""
        return self.distillation_N != 0

    @property
    def distilled_rows(self) -> list[int]:
        """The update's rows of which at least one token is distilled."""
        places = self.response_N[self.distilled_N].unique()
        return [self.rows[place] for place in places.tolist()]

    def of_responses(self, chosen_N: Tensor) -> Tensor:
        """``[N]`` bool: all tokens of the responses that have a chosen one."""
        return torch.isin(self.response_N, self.response_N[chosen_N].unique())

    def student_at(self, chosen_N: Tensor, logprobs_n: Tensor) -> Tensor:
        """Student log-probs of the chosen tokens; these log-probs where no earlier pass scored them:
        the first update of a step starts from the student's own weights.
        """
        scored_n = self.student_scored_N[chosen_N]
        return torch.where(scored_n, self.student_logprobs_N[chosen_N], logprobs_n.detach())


@dataclass(frozen=True)
class Objective:
    """The sum over an update's tokens of aggregation weight times

    surrogate(advantage) + distillation weight · min(exp(ℓ - s), limit) · divergence,

    both times the rollout correction. Each part is computed only where its credit is not 0.
    """

    loss: PolicyLoss
    aggregation: Aggregation
    divergence: Divergence | None = None
    importance_limit: float | None = None

    def surrogate(self, batch: MicroBatch, logprobs_n: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with gradient to the current log-probs of the n tokens of
        ``batch.credited_N``, and sums over these tokens.
        """
        credited_N = batch.credited_N
        student_n = batch.student_at(credited_N, logprobs_n)
        advantages_n = batch.advantages_N[credited_N]
        response_n = batch.response_N[credited_N]
        engine_n = batch.engine_logprobs_N[credited_N]
        token_loss_n = self.loss(logprobs_n, student_n, engine_n, advantages_n, response_n)
        loss = (token_loss_n * batch.weights_N[credited_N]).sum()
        current_n = logprobs_n.detach()
        return loss, {
            "surrogate": loss.detach(),
            "clipped": self.loss.clipped(current_n, student_n, advantages_n, response_n).sum(),
            "ratio": bounded_exp(current_n - student_n).double().sum(),
            "tokens": credited_N.sum(),
        }

    def distillation(
        self, batch: MicroBatch, divergence_n: Tensor, logprobs_n: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with gradient to the divergence of the n tokens of ``batch.distilled_N``, and
        sums over these tokens. ``logprobs_n`` are current and carry no gradient.
        """
        distilled_N = batch.distilled_N
        student_n = batch.student_at(distilled_N, logprobs_n)
        factor_n = batch.distillation_N[distilled_N] * self.loss.correction(
            student_n, batch.engine_logprobs_N[distilled_N]
        )
        if self.importance_limit is not None:
            factor_n = factor_n * bounded_exp(logprobs_n - student_n).clamp(
                max=self.importance_limit
            )
        loss = (factor_n * divergence_n * batch.weights_N[distilled_N]).sum()
        return loss, {
            "distillation": loss.detach(),
            "divergence": divergence_n.detach().double().sum(),
            "distilled": distilled_N.sum(),
        }

    def metrics(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Of an update, from the ``SUMS`` over all its micro-batches and ranks."""
        tokens, distilled = totals["tokens"], totals["distilled"]
        metrics = {
            "loss/total": totals["surrogate"] + totals["distillation"],
            "loss/surrogate": totals["surrogate"],
            # both over the tokens of responses with an advantage
            "update/clip_fraction": totals["clipped"] / tokens if tokens else 0.0,
            "update/ratio_mean": totals["ratio"] / tokens if tokens else 1.0,
        }
        if self.divergence is not None:
            metrics["loss/distillation"] = totals["distillation"]
            mean = totals["divergence"] / distilled if distilled else 0.0
            metrics["update/divergence_mean"] = mean
            metrics["update/distilled_tokens"] = distilled
        return metrics
