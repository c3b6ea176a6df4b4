"""Surprise: in correct rollouts, tokens that the policy itself did not expect earn more."""

from pydantic import NonNegativeFloat

from rlrt.batch import SUCCESS_REWARD, Credit, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages
from rlrt.validation import validated


class Surprise(CreditAssigner):
    """``Â_t = A · (1 + bonus · [-s_t > H_t])`` where r = 1, and ``A`` elsewhere. No teacher.

    A token surprises where its negative log-prob is above the entropy, its average at that position.
    """

    @validated("credit")
    def __init__(self, bonus: NonNegativeFloat = 0.5) -> None:
        self.bonus = bonus

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        mask_BT = batch.response_mask_BT
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, standardize=True)
        correct_B = batch.rewards_B >= SUCCESS_REWARD
        surprising_BT = correct_B[:, None] & (-batch.student_logprobs_BT > batch.student_entropy_BT)
        multiplier_BT = 1 + self.bonus * surprising_BT
        return Credit(
            advantages_BT=advantages_B[:, None] * multiplier_BT * mask_BT,
            advantages_B=advantages_B,
            metrics={"surprising_tokens": surprising_BT[mask_BT]},
        )
