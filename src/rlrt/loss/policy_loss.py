"""What a policy loss is: a loss per token, corrected for what the engine sampled with."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlrt.validation import validated

MAX_LOG_RATIO = 20.0  # exp() of it is finite in any float type, and far outside every clip


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
    def __init__(self, rollout_correction_limit: Annotated[float, Field(ge=1)] | None) -> None:
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
