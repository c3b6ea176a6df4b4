"""What the methods share that pull the student's distribution towards the teacher's."""

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner


def distilled_mask(batch: ScoredBatch, distills_B: Tensor) -> Tensor:
    """``[B, T]`` bool: response tokens of the rollouts to distill that have a context."""
    return (distills_B & batch.has_context_B)[:, None] & batch.response_mask_BT


class Distillation(CreditAssigner):
    """Distils every rollout that has a context; rewards play no part.

    The loss is the mean divergence over the distilled tokens of an update; a rollout without a
    context is left out of sum and denominator, and a step without any context has loss 0.
    """

    uses_context = True
    zero_on_equal_rewards = False

    def distills(self, outcomes: Outcomes, step: int) -> Tensor:
        return torch.ones_like(outcomes.rewards_B, dtype=torch.bool)

    def credited(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return self.distills(outcomes, step) & has_context_B

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return torch.zeros_like(has_context_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        distilled_BT = distilled_mask(batch, self.distills(batch, step))
        zeros_BT = torch.zeros_like(batch.student_logprobs_BT)
        return Credit(
            advantages_BT=zeros_BT,
            distillation_BT=zeros_BT.masked_fill(distilled_BT, 1),
            counted_BT=distilled_BT,
            metrics={"distilled_tokens": distilled_BT[batch.response_mask_BT]},
        )
