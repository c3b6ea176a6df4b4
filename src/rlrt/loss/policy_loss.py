"""Policy losses: per token, from log-prob and advantage, corrected for what the engine sampled with."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from rlrt.validation import validated

MAX_LOG_RATIO = 20.0  # exp() of it is finite in any float type, and far outside every clip

CorrectionLimit = Annotated[float, Field(ge=1)] | None
ClipLow = Annotated[float, Field(gt=0, lt=1)]


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """``exp(clamp(log_ratio, ±20))``: no difference of log-probs, however wild, overflows."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def rollout_correction(student_logprobs: Tensor, engine_logprobs: Tensor, limit: float) -> Tensor:
    """Truncated importance weight ``min(exp(s - e), limit)`` per token, detached.

    It multiplies the token loss after clipping and corrects for an engine that samples with slightly
    other probabilities than the trainer computes.
    """
    return bounded_exp((student_logprobs - engine_logprobs).detach()).clamp(max=limit)


class PolicyLoss(ABC):
    """Loss per token from current log-probs ℓ, student log-probs s, engine log-probs e and credit.

    ``rollout_correction_limit`` null leaves the correction out. All tensors are flat ``[N]``, real
    tokens of whole responses; ``response`` tells of each which response it belongs to.
    """

    @validated("loss")
    def __init__(self, rollout_correction_limit: CorrectionLimit) -> None:
        self.rollout_correction_limit = rollout_correction_limit

    @abstractmethod
    def token_loss(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        """Loss per token without the correction, with gradient to ``logprobs``."""

    @abstractmethod
    def clipped(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        """Bool per token: the clip acts on it."""

    def correction(self, student_logprobs: Tensor, engine_logprobs: Tensor) -> Tensor:
        """The rollout correction per token, 1 without one; a distillation loss takes it too."""
        if self.rollout_correction_limit is None:
            return torch.ones_like(student_logprobs)
        return rollout_correction(student_logprobs, engine_logprobs, self.rollout_correction_limit)

    def __call__(
        self,
        logprobs: Tensor,
        student_logprobs: Tensor,
        engine_logprobs: Tensor,
        advantages: Tensor,
        response: Tensor,
    ) -> Tensor:
        """Loss per token with the correction."""
        loss = self.token_loss(logprobs, student_logprobs, advantages, response)
        return loss * self.correction(student_logprobs, engine_logprobs)


def _clipped_loss(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """``max(-A ρ, -A clip(ρ, 1 - ε_low, 1 + ε_high))``."""
    return torch.maximum(
        -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    )


def _is_clipped(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Bool per token: its gradient is 0, since the ratio has left its bounds the advantage's way."""
    beyond = torch.where(advantages > 0, ratio > 1 + clip_high, ratio < 1 - clip_low)
    return beyond & (advantages != 0)


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
    loss = _clipped_loss(ratio, advantages, clip_low, clip_high)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss


class ClippedSurrogate(PolicyLoss):
    """PPO's clipped surrogate, the loss of GRPO and of the study; ``dual_clip`` null leaves that out."""

    @validated("loss")
    def __init__(
        self,
        clip_low: ClipLow = 0.2,
        clip_high: PositiveFloat = 0.28,
        dual_clip: Annotated[float, Field(gt=1)] | None = 3.0,
        rollout_correction_limit: CorrectionLimit = 2.0,
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
        return _is_clipped(ratio, advantages, self.clip_low, self.clip_high)


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
        clip_low: ClipLow = 3e-4,
        clip_high: PositiveFloat = 4e-4,
        rollout_correction_limit: CorrectionLimit = 2.0,
    ) -> None:
        super().__init__(rollout_correction_limit)
        self.clip_low = clip_low
        self.clip_high = clip_high

    def token_loss(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = sequence_ratio(logprobs.detach(), student_logprobs, response)
        ratio = ratio * (logprobs - logprobs.detach()).exp()
        return _clipped_loss(ratio, advantages, self.clip_low, self.clip_high)

    def clipped(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = sequence_ratio(logprobs, student_logprobs, response)
        return _is_clipped(ratio, advantages, self.clip_low, self.clip_high)


def sequence_ratio(logprobs: Tensor, student_logprobs: Tensor, response: Tensor) -> Tensor:
    """``exp(mean(ℓ - s))`` over each response, at every one of its tokens."""
    _, index = torch.unique(response, return_inverse=True)
    sums = logprobs.new_zeros(int(index.max()) + 1 if index.numel() else 0)
    log_ratio = (logprobs - student_logprobs).flatten()
    total = sums.index_add(0, index.flatten(), log_ratio)
    count = sums.index_add(0, index.flatten(), torch.ones_like(log_ratio))
    return bounded_exp(total / count)[index]


class CISPO(PolicyLoss):
    """``-A · sg[min(ρ, max_weight)] · ℓ`` with ``ρ = exp(ℓ - s)`` (arXiv:2506.13585, eq. 4–5).

    A clipped surrogate drops the gradient of a token whose ratio left its bounds; here it stays, with a
    bounded weight. The value is no objective to compare between methods.
    """

    @validated("loss")
    def __init__(
        self,
        max_weight: Annotated[float, Field(ge=1)] = 5.0,
        rollout_correction_limit: CorrectionLimit = 2.0,
    ) -> None:
        super().__init__(rollout_correction_limit)
        self.max_weight = max_weight

    def token_loss(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = bounded_exp(logprobs.detach() - student_logprobs)
        return -advantages * ratio.clamp(max=self.max_weight) * logprobs

    def clipped(
        self, logprobs: Tensor, student_logprobs: Tensor, advantages: Tensor, response: Tensor
    ) -> Tensor:
        ratio = bounded_exp(logprobs - student_logprobs)
        return (ratio > self.max_weight) & (advantages != 0)
