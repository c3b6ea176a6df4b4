"""PPO's clipped surrogate: the policy loss of GRPO and of the study."""

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from rlrt.loss.policy_loss import PolicyLoss, bounded_exp
from rlrt.validation import validated


def clipped_surrogate(
    logprobs: Tensor,
    student_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> Tensor:
    """Loss per token, any shape: ``max(-A ρ, -A clip(ρ, 1 - ε_low, 1 + ε_high))``, ``ρ = exp(ℓ - s)``.

    (arXiv:1707.06347, eq. 7, with the asymmetric clip of arXiv:2503.14476.) Where A < 0 and
    ``dual_clip`` c is set, at most ``-c A`` (arXiv:1912.09729, eq. 5).
    """
    ratio = bounded_exp(logprobs - student_logprobs)
    loss = torch.maximum(
        -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    )
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss


class ClippedSurrogate(PolicyLoss):
    """The clipped surrogate with its settings; ``dual_clip`` null leaves that part out."""

    @validated("loss")
    def __init__(
        self,
        clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        clip_high: PositiveFloat = 0.28,
        dual_clip: Annotated[float, Field(gt=1)] | None = 3.0,
        rollout_correction_limit: Annotated[float, Field(ge=1)] | None = 2.0,
    ) -> None:
        super().__init__(rollout_correction_limit)
        self.clip_low = clip_low
        self.clip_high = clip_high
        self.dual_clip = dual_clip

    def token_loss(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        return clipped_surrogate(
            logprobs, student_logprobs, advantages, self.clip_low, self.clip_high, self.dual_clip
        )

    def clipped(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = bounded_exp(logprobs - student_logprobs)
        beyond = torch.where(advantages > 0, ratio > 1 + self.clip_high, ratio < 1 - self.clip_low)
        return beyond & (advantages != 0)
