"""CISPO: the importance weight is clipped, never the token's gradient."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from rlrt.loss.policy_loss import PolicyLoss, bounded_exp
from rlrt.validation import validated


class CISPO(PolicyLoss):
    """``-A · sg[min(ρ, max_weight)] · ℓ`` with ``ρ = exp(ℓ - s)`` (arXiv:2506.13585, eq. 4–5).

    A clipped surrogate drops the gradient of a token whose ratio left its bounds; here it stays, with a
    bounded weight. The value is no objective to compare between methods.
    """

    @validated("loss")
    def __init__(
        self,
        max_weight: Annotated[float, Field(ge=1)] = 5.0,
        rollout_correction_limit: Annotated[float, Field(ge=1)] | None = 2.0,
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
