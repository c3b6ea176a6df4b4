"""The reweighting family: the group advantage, redistributed over tokens by what the teacher says.

``Â_t = A · [(1 - λ) + λ · clip(w_t, 1 - ε_w, 1 + ε_w)]`` on gated rollouts and ``A`` elsewhere
(arXiv:2605.10781, eq. 7). A method of the family is a direction: whom of the two views it pays where.
"""

from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages, has_signal
from rlrt.loss.policy_loss import bounded_exp
from rlrt.validation import validated


def token_multipliers(
    log_weight_BT: Tensor, mixing_B1: Tensor, clip_radius: float
) -> tuple[Tensor, Tensor]:
    """``(1 - λ) + λ · clip(w, 1 - ε, 1 + ε)`` and a mask of where the clip acted, both ``[B, T]``.

    ``|multiplier - 1| <= λ · ε`` always; a log weight of 0 gives exactly 1.
    """
    weight_BT = bounded_exp(log_weight_BT)
    clipped_BT = weight_BT.clamp(1 - clip_radius, 1 + clip_radius)
    return 1 + mixing_B1 * (clipped_BT - 1), clipped_BT != weight_BT


class Reweighting(CreditAssigner):
    """Shared by the methods of the family; each states its ``direction``.

    Settings: ``mixing`` is λ at step 0, in [0, 1]; ``mixing_decay_steps`` lowers it linearly to 0
    over that many rollout steps (null: constant); ``clip_radius`` is ε_w, in (0, 1];
    ``standardize`` divides the group advantage by the group's std.
    """

    uses_context = True

    @validated("credit")
    def __init__(
        self,
        mixing: Annotated[float, Field(ge=0, le=1)] = 0.5,
        mixing_decay_steps: PositiveInt | None = None,
        clip_radius: Annotated[float, Field(gt=0, le=1)] = 0.2,
        standardize: bool = True,
    ) -> None:
        self.mixing = mixing
        self.mixing_decay_steps = mixing_decay_steps
        self.clip_radius = clip_radius
        self.standardize = standardize

    @abstractmethod
    def direction(self, outcomes: Outcomes) -> Tensor:
        """``[B]`` in [-1, 1]. Above 0 agreement pays, ``w = exp(sign(A) (τ - s))``; below 0 dissent
        pays, its inverse; 0 leaves the plain advantage. The size scales λ.
        """

    def acts_at(self, batch: ScoredBatch) -> Tensor:
        """``[B, T]`` bool: tokens that may be reweighted (default all)."""
        return batch.response_mask_BT

    def mixing_at(self, step: int) -> float:
        """λ at a rollout step counted from 0."""
        if self.mixing_decay_steps is None:
            return self.mixing
        return self.mixing * max(1 - step / self.mixing_decay_steps, 0.0)

    def reads_teacher(self, outcomes: Outcomes, step: int) -> Tensor:
        """Rollouts with a direction in groups with a signal, as long as λ is not 0."""
        reads_B = (self.direction(outcomes) != 0) & has_signal(
            outcomes.shaped_rewards_B, outcomes.group_B
        )
        return reads_B if self.mixing_at(step) > 0 else torch.zeros_like(reads_B)

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return self.reads_teacher(outcomes, step) & has_context_B

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, self.standardize)
        mask_BT = batch.response_mask_BT
        direction_B = self.direction(batch).to(advantages_B.dtype)
        acting_B = batch.teacher_scored_B & (direction_B != 0) & (advantages_B != 0)
        acting_BT = acting_B[:, None] & mask_BT & self.acts_at(batch)

        delta_BT = batch.teacher_logprobs_BT - batch.student_logprobs_BT
        log_weight_BT = (direction_B * advantages_B).sign()[:, None] * delta_BT
        multiplier_BT, clipped_BT = token_multipliers(
            torch.where(acting_BT, log_weight_BT, 0),
            self.mixing_at(step) * direction_B.abs()[:, None],
            self.clip_radius,
        )
        return Credit(
            advantages_BT=torch.where(mask_BT, advantages_B[:, None] * multiplier_BT, 0),
            advantages_B=advantages_B,
            metrics={
                # the first three over the reweighted tokens
                "weight_mean": multiplier_BT[acting_BT],
                "weight_clipped": clipped_BT[acting_BT],
                "teacher_minus_student": delta_BT[acting_BT],
                "reweighted_tokens": acting_BT[mask_BT],
                "mixing": torch.tensor([self.mixing_at(step)]),
            },
        )
