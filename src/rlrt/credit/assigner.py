"""What a credit assigner is: the one contract that every method of this folder keeps."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.functional.divergences import Divergence
from rlrt.functional.groups import has_signal


class CreditAssigner(ABC):
    """Turns the scored rollouts of a step into credit per token.

    A subclass states what it needs; the house computes only that. ``uses_context`` says that the
    teacher view plays a part at some step (the context itself is chosen in the method's YAML);
    ``reads_teacher`` and ``distils`` narrow it to rollouts and steps. ``credited`` and
    ``reads_student`` have safe defaults: a method that overrides them spares the house the work on
    rollouts that they leave out. The contract test checks these promises, and that of
    ``zero_on_equal_rewards``: a group whose shaped rewards are all equal gets no credit.

    A method that distils sets ``divergence`` and, where the divergence of an update is to be weighted
    by ``min(exp(ℓ - s), limit)``, ``importance_limit``.
    """

    uses_context: bool = False
    reads_divergence: bool = False  # KL(student || teacher) wherever it reads the teacher
    zero_on_equal_rewards: bool = True
    divergence: Divergence | None = None
    importance_limit: float | None = None

    def reads_teacher(self, outcomes: Outcomes, step: int) -> Tensor:
        """``[B]`` bool: rollouts whose credit reads a teacher tensor at this step (default none)."""
        return torch.zeros_like(outcomes.rewards_B, dtype=torch.bool)

    def distils(self, outcomes: Outcomes, step: int) -> Tensor:
        """``[B]`` bool: rollouts that are distilled at this step if they have a context."""
        return torch.zeros_like(outcomes.rewards_B, dtype=torch.bool)

    def credited(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        """``[B]`` bool: rollouts that may get credit at this step; all others have credit 0.

        Default: groups with a signal where equal rewards give no credit, else all.
        """
        if self.zero_on_equal_rewards:
            return has_signal(outcomes.shaped_rewards_B, outcomes.group_B)
        return torch.ones_like(outcomes.rewards_B, dtype=torch.bool)

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        """``[B]`` bool: rollouts whose credit reads the student's log-probs or entropies at this step.

        Default: those that may get credit.
        """
        return self.credited(outcomes, has_context_B, step)

    @abstractmethod
    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        """Credit for every response token; detached, finite, and 0 outside the response mask."""
