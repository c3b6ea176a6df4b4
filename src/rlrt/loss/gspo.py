"""GSPO: one importance ratio for a whole response, clipped as a whole."""

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from rlrt.loss.policy_loss import PolicyLoss, bounded_exp
from rlrt.validation import validated


class GSPO(PolicyLoss):
    """``max(-A ρ, -A clip(ρ, 1 - ε_low, 1 + ε_high))``, ρ the geometric mean of a response's ratios.

    GSPO-token (arXiv:2507.18071, eq. 13–14): ``ρ_t = sg[ρ] · exp(ℓ_t - sg[ℓ_t])`` has the value of the
    response's ρ and the gradient of its own token, so that token credit keeps its meaning; where all
    tokens of a response share A it is GSPO. Meant for ``aggregation=sequence_mean``. The clip is
    narrow, since a mean of many log ratios is near 0.
    """

    @validated("loss")
    def __init__(
        self,
        clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4,
        clip_high: PositiveFloat = 4e-4,
        rollout_correction_limit: Annotated[float, Field(ge=1)] | None = 2.0,
    ) -> None:
        super().__init__(rollout_correction_limit)
        self.clip_low = clip_low
        self.clip_high = clip_high

    def token_loss(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = sequence_ratio(logprobs.detach(), student_logprobs, response)
        ratio = ratio * (logprobs - logprobs.detach()).exp()
        return torch.maximum(
            -advantages * ratio, -advantages * ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        )

    def clipped(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = sequence_ratio(logprobs, student_logprobs, response)
        beyond = torch.where(advantages > 0, ratio > 1 + self.clip_high, ratio < 1 - self.clip_low)
        return beyond & (advantages != 0)


def sequence_ratio(logprobs: Tensor, student_logprobs: Tensor, response: Tensor) -> Tensor:
    """``exp(mean(ℓ - s))`` over each response, at every one of its tokens."""
    _, index = torch.unique(response, return_inverse=True)
    sums = logprobs.new_zeros(int(index.max()) + 1 if index.numel() else 0)
    log_ratio = (logprobs - student_logprobs).flatten()
    total = sums.index_add(0, index.flatten(), log_ratio)
    count = sums.index_add(0, index.flatten(), torch.ones_like(log_ratio))
    return bounded_exp(total / count)[index]
