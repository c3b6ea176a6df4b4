"""RLRT with its sign reversed: on correct rollouts, agreement with the teacher pays."""

from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.reweighting import Reweighting


class TeacherFavoring(Reweighting):
    """``w_t = exp(sign(A) · (τ_t - s_t))`` where r = 1, given a correct peer (arXiv:2605.10781, Fig. 1a).

    The control for RLRT: same context, same gate, opposite direction.
    """

    def direction(self, outcomes: Outcomes) -> Tensor:
        return outcomes.correct_B.to(outcomes.rewards_B.dtype)
