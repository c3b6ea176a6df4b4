"""Which rank works on which group of a step: its updates' tokens spread evenly over the ranks."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from rlrt import distributed
from rlrt.batch import Rollout
from rlrt.credit.assigner import CreditAssigner
from rlrt.training.scoring import outcomes_of


class Cost(NamedTuple):
    """Tokens of a group: those that its update reads, and all."""

    group: int
    credited: int
    every: int


def balanced(
    rollouts: Sequence[Rollout], assigner: CreditAssigner, step: int, problems_per_update: int
) -> list[Rollout]:
    """The rollouts of the groups that this rank is to score and train on, group after group; collective.

    Whole groups move, so that peers and advantages stay on one rank. What may get credit is known
    from the outcomes alone.
    """
    if distributed.get_world_size() == 1:
        return list(rollouts)
    outcomes = outcomes_of(rollouts)
    every_B = torch.ones_like(outcomes.group_B, dtype=torch.bool)
    own = costs_of(rollouts, assigner.credited(outcomes, every_B, step))
    costs = [cost for part in distributed.all_gather_object(own) for cost in part]
    owner_of = owners(costs, problems_per_update, distributed.get_world_size())
    parts: list[list[Rollout]] = [[] for _ in range(distributed.get_world_size())]
    for rollout in rollouts:
        parts[owner_of[rollout.group]].append(rollout)
    found = [rollout for part in distributed.all_to_all_object(parts) for rollout in part]
    return sorted(found, key=lambda rollout: (rollout.group, rollout.sample))


def costs_of(rollouts: Sequence[Rollout], credited_B: Tensor) -> list[Cost]:
    """Of each group; its prompt is read once."""
    rows = zip(rollouts, credited_B.tolist(), strict=True)
    found = []
    for group, members in groupby(rows, key=lambda row: row[0].group):
        kept = [(rollout.prompt_ids, len(rollout.response.ids), used) for rollout, used in members]
        prompt = len(kept[0][0])
        credited = sum(length for _, length, used in kept if used)
        every = prompt + sum(length for _, length, _ in kept)
        found.append(Cost(group, credited + prompt if credited else 0, every))
    return found


def owners(costs: Sequence[Cost], problems_per_update: int, count: int) -> dict[int, int]:
    """The rank of each group, of ``count``: the most costly group first, to the rank that has the least.

    Counted are the tokens of its update that are read with credit, then all tokens of the step.
    """
    credited: dict[tuple[int, int], int] = {}  # by update and rank
    every = [0] * count
    found: dict[int, int] = {}
    largest_first = sorted(costs, key=lambda cost: (-cost.credited, -cost.every, cost.group))
    for cost in largest_first:
        update = cost.group // problems_per_update
        rank = min(range(count), key=lambda one: (credited.get((update, one), 0), every[one], one))
        credited[update, rank] = credited.get((update, rank), 0) + cost.credited
        every[rank] += cost.every
        found[cost.group] = rank
    return found
