"""RLRT with its sign reversed: on correct rollouts, agreement with the teacher pays."""

from torch import Tensor

from rlrt.batch import SUCCESS_REWARD
from rlrt.credit.reweighting import Reweighting


class TeacherFavoring(Reweighting):
    """``w_t = exp(sign(A) · (τ_t - s_t))`` where r = 1, behind a correct peer (arXiv:2605.10781, Fig. 1a).

    The control for RLRT: same context, same gate, opposite direction.
    """

    direction = +1

    def gate(self, rewards_B: Tensor) -> Tensor:
        return rewards_B >= SUCCESS_REWARD
