"""CISPO: the importance weight is clipped, never the token's gradient."""

from torch import Tensor

from rlrt.loss.policy_loss import PolicyLoss, bounded_exp


class CISPO(PolicyLoss):
    """``-A · sg[min(ρ, max_weight)] · ℓ`` with ``ρ = exp(ℓ - s)`` (arXiv:2506.13585, eq. 4–5).

    A clipped surrogate drops the gradient of a token whose ratio left its bounds; here it stays, with a
    bounded weight. The value is no objective to compare between methods.
    """

    def __init__(
        self, max_weight: float = 5.0, rollout_correction_limit: float | None = 2.0
    ) -> None:
        super().__init__(rollout_correction_limit)
        if max_weight < 1:
            raise ValueError(f"loss.max_weight is {max_weight}, it must be at least 1")
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
