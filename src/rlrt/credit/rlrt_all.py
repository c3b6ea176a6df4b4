"""RLRT without its gate, the ablation that collapses."""

import torch
from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.reweighting import Reweighting


class RLRTAll(Reweighting):
    """RLRT's weight on every rollout with a correct peer, wrong ones too (arXiv:2605.10781, Table 4).

    On a wrong rollout it blames what the teacher also predicts more, and what it does not less: dissent
    is paid whatever comes of it. The paper sees length and entropy grow without bound near step 40.
    """

    def direction(self, outcomes: Outcomes) -> Tensor:
        return -torch.ones_like(outcomes.rewards_B)
