"""The clipped surrogate of an update, and the correction for what the engine sampled with."""

import torch
from torch import Tensor

from rlrt.functional.ratios import bounded_exp


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


def rollout_correction(student_logprobs: Tensor, engine_logprobs: Tensor, limit: float) -> Tensor:
    """Truncated importance weight ``min(exp(s - e), limit)`` per token, detached.

    It multiplies the token loss after clipping and corrects for an engine that samples with slightly
    other probabilities than the trainer computes.
    """
    return bounded_exp((student_logprobs - engine_logprobs).detach()).clamp(max=limit)


class ClippedSurrogate:
    """The policy loss per token: surrogate and rollout correction with their settings.

    ``dual_clip`` or ``rollout_correction_limit`` null leaves that part out.
    """

    def __init__(
        self,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        dual_clip: float | None = 3.0,
        rollout_correction_limit: float | None = 2.0,
    ) -> None:
        if not 0 < clip_low < 1:
            raise ValueError(f"loss.clip_low is {clip_low}, it must lie in (0, 1)")
        if clip_high <= 0:
            raise ValueError(f"loss.clip_high is {clip_high}, it must be above 0")
        if dual_clip is not None and dual_clip <= 1:
            raise ValueError(f"loss.dual_clip is {dual_clip}, it must be null or above 1")
        if rollout_correction_limit is not None and rollout_correction_limit < 1:
            raise ValueError(
                f"loss.rollout_correction_limit is {rollout_correction_limit}, "
                "it must be null or at least 1"
            )
        self.clip_low = clip_low
        self.clip_high = clip_high
        self.dual_clip = dual_clip
        self.rollout_correction_limit = rollout_correction_limit

    def __call__(
        self,
        logprobs: Tensor,
        student_logprobs: Tensor,
        engine_logprobs: Tensor,
        advantages: Tensor,
    ) -> Tensor:
        """Loss per token; all arguments share one shape."""
        loss = clipped_surrogate(
            logprobs, student_logprobs, advantages, self.clip_low, self.clip_high, self.dual_clip
        )
        if self.rollout_correction_limit is None:
            return loss
        return loss * rollout_correction(
            student_logprobs, engine_logprobs, self.rollout_correction_limit
        )
