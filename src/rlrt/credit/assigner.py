"""What a credit assigner is: the one contract that every method of this folder keeps; group advantages."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.loss.divergences import Divergence

STD_EPSILON = 1e-6


def group_advantages(rewards_B: Tensor, group_B: Tensor, standardize: bool) -> Tensor:
    """Advantage of every rollout over its group's mean reward (arXiv:2402.03300, §4.1).

    ``A = r - mean(r)``, divided by ``std(r) + 1e-6`` (unbiased std) where ``standardize``. A group of
    equal rewards, a group of one included, gives exactly 0: a mean of equal floats need not be equal
    to them, and a standard deviation of rounding noise would blow the rest up.
    """
    _, index_B = torch.unique(group_B, return_inverse=True)
    groups = int(index_B.max()) + 1 if len(index_B) else 0
    zeros_G = rewards_B.new_zeros(groups)
    size_G = zeros_G.index_add(0, index_B, torch.ones_like(rewards_B))
    mean_G = zeros_G.index_add(0, index_B, rewards_B) / size_G
    advantages_B = rewards_B - mean_G[index_B]
    if standardize:
        square_G = zeros_G.index_add(0, index_B, advantages_B.square())
        std_G = (square_G / (size_G - 1).clamp(min=1)).sqrt()
        advantages_B = advantages_B / (std_G[index_B] + STD_EPSILON)
    return torch.where(has_signal(rewards_B, group_B), advantages_B, torch.zeros_like(rewards_B))


def has_signal(rewards_B: Tensor, group_B: Tensor) -> Tensor:
    """True for every rollout of a group whose rewards differ; only such groups move the policy."""
    _, index_B = torch.unique(group_B, return_inverse=True)
    groups = int(index_B.max()) + 1 if len(index_B) else 0
    low_G = rewards_B.new_full((groups,), torch.inf)
    low_G = low_G.scatter_reduce(0, index_B, rewards_B, "amin")
    high_G = -(
        rewards_B.new_full((groups,), torch.inf).scatter_reduce(0, index_B, -rewards_B, "amin")
    )
    return (low_G < high_G)[index_B]


class CreditAssigner(ABC):
    """Turns the scored rollouts of a step into credit per token.

    A subclass states what it needs; only that is computed. ``uses_context`` says that the
    teacher view plays a part at some step (the context itself is chosen in the method's YAML);
    ``reads_teacher`` and ``distills`` narrow it to rollouts and steps. ``credited`` and
    ``reads_student`` have safe defaults: a method that overrides them spares the work on
    rollouts that they leave out. The contract test checks these promises, and that of
    ``zero_on_equal_rewards``: a group whose shaped rewards are all equal gets no credit.

    A method that distills sets ``divergence`` and, where the divergence of an update is to be weighted
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

    def distills(self, outcomes: Outcomes, step: int) -> Tensor:
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
