"""GRPO with an entropy bonus: tokens at which the policy hesitates get more credit."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages
from rlrt.validation import validated


class GRPOEntropy(CreditAssigner):
    """``Â_t = A + min(α · H_t, |A| / κ)`` (arXiv:2506.14758). No teacher.

    ``H_t`` is the policy's entropy in nats over the full vocabulary before any update of the step,
    detached: a term of the advantage, not an entropy loss. Tokens of high entropy are where a
    response takes its direction; right ones earn more there, wrong ones are blamed less.

    ``entropy_weight`` is α. ``cap`` is κ, above 1, so that the bonus never turns an advantage's sign.
    A = 0 adds nothing; α = 0 is GRPO.
    """

    @validated("credit")
    def __init__(
        self,
        entropy_weight: NonNegativeFloat = 0.4,
        cap: Annotated[float, Field(gt=1)] = 2.0,
        standardize: bool = False,
    ) -> None:
        self.entropy_weight = entropy_weight
        self.cap = cap
        self.standardize = standardize

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        credited_B = self.credited(outcomes, has_context_B, step)
        return credited_B if self.entropy_weight > 0 else torch.zeros_like(credited_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        mask_BT = batch.response_mask_BT
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, self.standardize)
        most_B1 = advantages_B.abs()[:, None] / self.cap
        # rounding can leave the entropy of a certain token a little below 0
        wanted_BT = self.entropy_weight * batch.student_entropy_BT.clamp(min=0)
        bonus_BT = torch.minimum(wanted_BT, most_B1) * mask_BT
        credited_BT = mask_BT & (advantages_B != 0)[:, None]
        return Credit(
            advantages_BT=(advantages_B[:, None] + bonus_BT) * mask_BT,
            advantages_B=advantages_B,
            metrics={
                # both over the tokens of rollouts with an advantage
                "bonus_mean": bonus_BT[credited_BT],
                "bonus_capped": (wanted_BT > most_B1)[credited_BT],
            },
        )
