"""What a credit assigner is: the one contract that every method of this folder keeps."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rlrt.batch import Credit, ScoredBatch


class CreditAssigner(ABC):
    """Turns the scored rollouts of a step into credit per token.

    A subclass states what it needs; the house computes only that. ``uses_context`` says that it
    reads the teacher view at some step (the context itself is chosen in the method's YAML);
    ``reads_teacher`` narrows it to rollouts and steps. ``zero_on_equal_rewards`` is a promise that
    the contract test checks: a group whose rewards are all equal gets no credit.
    """

    uses_context: bool = False
    zero_on_equal_rewards: bool = True

    def reads_teacher(self, rewards_B: Tensor, group_B: Tensor, step: int) -> Tensor:
        """``[B]`` bool: rollouts whose credit reads teacher log-probs at this step (default none)."""
        return torch.zeros_like(rewards_B, dtype=torch.bool)

    @abstractmethod
    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        """Credit for every response token; detached, finite, and 0 outside the response mask."""
