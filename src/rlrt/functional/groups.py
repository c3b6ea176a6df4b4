"""Advantages within groups: the rollouts of one problem judged against each other."""

import torch
from torch import Tensor

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
