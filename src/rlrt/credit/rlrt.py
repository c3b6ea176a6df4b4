"""RLRT: on correct rollouts, what the student chose against the teacher's prediction pays."""

from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.reweighting import Reweighting


class RLRT(Reweighting):
    """``w_t = exp(-sign(A) · (τ_t - s_t)) = (P_S / P_T)^sign(A)`` where r = 1 (arXiv:2605.10781).

    The teacher sees a correct peer rollout. A token that the student preferred although the peer's
    solution pointed elsewhere, in a response that turned out right, is the student's own reasoning.
    A correct rollout without a correct peer keeps its plain advantage.
    """

    def direction(self, outcomes: Outcomes) -> Tensor:
        return -outcomes.correct_B.to(outcomes.rewards_B.dtype)
