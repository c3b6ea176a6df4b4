"""SRPO: failed rollouts learn from the teacher, all others from their reward."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages, has_signal
from rlrt.credit.distillation import distilled_mask
from rlrt.loss.divergences import AlphaDivergence
from rlrt.loss.policy_loss import bounded_exp
from rlrt.validation import validated


class SRPO(CreditAssigner):
    """SDPO's divergence where r = 0 and a context exists, the group advantage elsewhere (arXiv:2604.02288).

    A correct rollout needs no correction, and a failed one gets more from a distribution per token
    than from one number. Distilled tokens weigh ``exp(-β · H_T)``, ``H_T`` the teacher's entropy there,
    scaled to a mean of 1 in every update: an unsure teacher is followed less. β 0 weighs all alike
    and needs no teacher entropy. ``β · H_T`` is bounded by 20, so that no weight vanishes.

    Advantages are formed over the full group, distilled rollouts included, and all response tokens
    share one denominator. A failed rollout without a context keeps its advantage; in a group of
    failures with contexts (an answer, say) all are distilled although their advantage is 0.
    """

    uses_context = True
    zero_on_equal_rewards = False

    @validated("credit")
    def __init__(
        self,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        top_k: Annotated[
            PositiveInt | None, Field(description="it must be at least 1, or null for all ids")
        ] = 100,
        beta: NonNegativeFloat = 1.0,
        importance_limit: Annotated[float, Field(ge=1)] | None = 2.0,
        standardize: bool = False,
    ) -> None:
        self.beta = beta
        self.standardize = standardize
        self.importance_limit = importance_limit
        self.divergence = AlphaDivergence(alpha, top_k)

    def distills(self, outcomes: Outcomes, step: int) -> Tensor:
        return ~outcomes.correct_B

    def reads_teacher(self, outcomes: Outcomes, step: int) -> Tensor:
        """Rollouts that are distilled, for the teacher's entropy, unless β is 0."""
        distills_B = self.distills(outcomes, step)
        return distills_B if self.beta > 0 else torch.zeros_like(distills_B)

    def credited(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        """Rollouts that are distilled, and groups with a signal."""
        distilled_B = self.distills(outcomes, step) & has_context_B
        return distilled_B | has_signal(outcomes.shaped_rewards_B, outcomes.group_B)

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return torch.zeros_like(has_context_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, self.standardize)
        mask_BT = batch.response_mask_BT
        distilled_BT = distilled_mask(batch, self.distills(batch, step))
        weight_BT = bounded_exp(-self.beta * batch.teacher_entropy_BT)
        zeros_BT = torch.zeros_like(weight_BT)
        return Credit(
            advantages_BT=torch.where(mask_BT & ~distilled_BT, advantages_B[:, None], zeros_BT),
            distillation_BT=torch.where(distilled_BT, weight_BT, zeros_BT),
            relative_distillation=True,
            advantages_B=advantages_B,
            metrics={"distilled_tokens": distilled_BT[mask_BT]},
        )
