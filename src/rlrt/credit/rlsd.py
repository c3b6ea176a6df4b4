"""RLSD: agreement with the teacher pays."""

import torch
from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.reweighting import Reweighting


class RLSD(Reweighting):
    """``w_t = exp(sign(A) · (τ_t - s_t))`` on every rollout (arXiv:2605.10781, Table 4).

    The teacher sees the ground-truth answer. On a correct rollout the tokens that the teacher finds
    likelier than the student get more credit; on a wrong one they get less blame.
    """

    def direction(self, outcomes: Outcomes) -> Tensor:
        return torch.ones_like(outcomes.rewards_B)
