"""RLRT for graded and for noisy rewards: dissent pays as far as the rollout is thought correct."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlrt.batch import Outcomes
from rlrt.credit.assigner import group_advantages
from rlrt.credit.reweighting import Reweighting
from rlrt.validation import validated


def correctness(rewards_B: Tensor, group_B: Tensor, flip_probability: float) -> Tensor:
    """``[B]`` in [0, 1]: the probability that a rollout is truly correct, given its observed reward.

    Without flips that is the reward. Where a truth of 0 or 1 was observed flipped with probability p,
    a group's success rate is estimated by ``π = clip((mean r - p) / (1 - 2p), 0, 1)``, and by Bayes

        observed 1: (1-p) π / ((1-p) π + p (1-π))      observed 0: p π / (p π + (1-p) (1-π))

    with straight lines between them for grades. Both denominators are at least p, so never 0. A
    group whose rewards look like flips alone (π = 0) has correctness 0 throughout, one whose failures
    do (π = 1) has 1.
    """
    rewards_B = rewards_B.clamp(0, 1)
    p = flip_probability
    if p == 0:
        return rewards_B
    mean_B = rewards_B - group_advantages(rewards_B, group_B, standardize=False)
    rate_B = ((mean_B - p) / (1 - 2 * p)).clamp(0, 1)
    if_one_B = (1 - p) * rate_B / ((1 - p) * rate_B + p * (1 - rate_B))
    if_zero_B = p * rate_B / (p * rate_B + (1 - p) * (1 - rate_B))
    return torch.lerp(if_zero_B, if_one_B, rewards_B)


class RLRTGraded(Reweighting):
    """``Â_t = A · [(1 - λc) + λc · clip(w_t)]``, w RLRT's, c the rollout's correctness. Beyond the paper.

    RLRT's gate asks whether r = 1. A grade of 0.7, or a reward that is wrong now and then, answers
    that only in part, so the gate becomes a dimmer: λ shrinks with the doubt that the student's own
    way led to a right answer. The advantage itself is the observed reward's, as ever.

    Rewards of 0 and 1 without flips are RLRT exactly; c = 0 is GRPO. ``flip_probability`` is p above,
    in [0, 0.5): at 0.5 a reward says nothing. Peers are chosen by the observed reward.
    """

    @validated("credit")
    def __init__(
        self,
        mixing: float = 0.5,
        mixing_decay_steps: int | None = None,
        clip_radius: float = 0.2,
        standardize: bool = True,
        flip_probability: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
    ) -> None:
        super().__init__(mixing, mixing_decay_steps, clip_radius, standardize)
        self.flip_probability = flip_probability

    def direction(self, outcomes: Outcomes) -> Tensor:
        return -correctness(outcomes.rewards_B, outcomes.group_B, self.flip_probability)
