"""What a credit assigner is: the one contract that every method of this folder keeps."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.functional.divergences import Divergence


class CreditAssigner(ABC):
    """Turns the scored rollouts of a step into credit per token.

    A subclass states what it needs; the house computes only that. ``uses_context`` says that the
    teacher view plays a part at some step (the context itself is chosen in the method's YAML);
    ``reads_teacher`` and ``distils`` narrow it to rollouts and steps. ``zero_on_equal_rewards`` is a
    promise that the contract test checks: a group whose rewards are all equal gets no credit.

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

    @abstractmethod
    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        """Credit for every response token; detached, finite, and 0 outside the response mask."""
