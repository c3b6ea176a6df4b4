"""GRPO: every token of a response gets the advantage of the response."""

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages
from rlrt.validation import validated


class GRPO(CreditAssigner):
    """``Â_t = A`` (arXiv:2402.03300). No teacher.

    ``standardize`` divides the advantage by the group's standard deviation; the study does not.
    """

    @validated("credit")
    def __init__(self, standardize: bool = False) -> None:
        self.standardize = standardize

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return torch.zeros_like(has_context_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, self.standardize)
        return Credit(
            advantages_BT=advantages_B[:, None] * batch.response_mask_BT,
            advantages_B=advantages_B,
        )
