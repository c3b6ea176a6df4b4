"""A hybrid: dissent pays where the rollout succeeded, agreement where it failed."""

import torch
from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.reweighting import Reweighting


class OutcomeRouted(Reweighting):
    """RLRT's weight where r = 1, RLSD's where r = 0, both given a correct peer. Beyond the paper.

    A success says that the student's own way was good, so what the teacher would not have written
    earns more. A failure says nothing good of it, so the teacher is followed: its tokens are blamed
    less and the student's departures more. RLRT-all goes the other way on failures, and collapses.

    A group with one correct rollout: that one has no peer and keeps its plain advantage, the failed
    ones have one and are reweighted. Groups of equal rewards get no credit and need no teacher.
    """

    def direction(self, outcomes: Outcomes) -> Tensor:
        ones_B = torch.ones_like(outcomes.rewards_B)
        return torch.where(outcomes.correct_B, -ones_B, ones_B)
