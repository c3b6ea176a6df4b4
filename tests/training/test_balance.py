"""Groups move to the ranks such that every update's tokens are spread, and nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.processes import call_ranks
from tests.training.step import step_of

from rlrt import distributed
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.credit.grpo import GRPO
from rlrt.training.balance import Cost, balanced, costs_of, owners
from rlrt.training.performance import idle_share


def rollout(group: int, sample: int) -> Rollout:
    """Lengths and rewards depend on the group alone."""
    length = 1 if group % 5 == 4 else 10 + group * group
    response = Response(np.full(length, group), np.full(length, -0.5), False)
    reward = float(sample) if group % 4 else 1.0  # every fourth group is silent
    problem = Problem(str(group), "q", "a", "test")
    return Rollout(problem, group, sample, (1, 2), response, "", Verdict.RIGHT, reward)


def tokens(rollouts: list[Rollout], update: int) -> int:
    """Of the groups of an update that speak."""
    mine = [r for r in rollouts if r.group // 12 == update and r.group % 4]
    return sum(len(r.response.ids) for r in mine)


def balance(folder: Path) -> None:
    """One rank, which samples the groups of its place: what it then holds, and who waits."""
    own = [rollout(g, s) for g in distributed.groups_of_rank(24, 12) for s in range(2)]
    found = balanced(own, GRPO(), 0, 12)
    assert found == [rollout(r.group, r.sample) for r in found]
    shares = [idle_share([tokens(some, 0), tokens(some, 1)]) for some in (own, found)]
    held = [[r.group, r.sample] for r in found]
    assert all(a.prompt_ids is b.prompt_ids for a, b in zip(found[::2], found[1::2], strict=True))
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps([held, shares]))
    distributed.barrier()


@pytest.mark.parametrize("count", [2, 3])
def test_whole_groups_move_and_ranks_wait_less(tmp_path: Path, count: int) -> None:
    call_ranks(count, balance, tmp_path)
    rows = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(count)]
    for held, _ in rows:
        assert held == sorted(held)
        groups = {group for group, _ in held}
        assert held == [[group, sample] for group in sorted(groups) for sample in range(2)]
    assert sorted(row for held, _ in rows for row in held) == [
        [g, s] for g in range(24) for s in (0, 1)
    ]
    before, after = rows[0][1]
    assert all(shares == [before, after] for _, shares in rows)
    assert after < 0.15 < before


def test_costs_by_hand() -> None:
    sampled, *_ = step_of()
    rollouts = sampled.rollouts
    credited = torch.zeros(len(rollouts), dtype=torch.bool)
    credited[0] = True
    first, *others = costs_of(rollouts, credited)
    members = [rollout for rollout in rollouts if rollout.group == first.group]
    prompt = len(rollouts[0].prompt_ids)
    assert first.credited == prompt + len(rollouts[0].response.ids)
    assert first.every == prompt + sum(len(rollout.response.ids) for rollout in members)
    assert all(cost.credited == 0 for cost in others)
    assert {cost.group for cost in others} | {first.group} == {r.group for r in rollouts}


def test_the_largest_goes_first_and_silent_groups_fill_up() -> None:
    costs = [
        Cost(0, 5, 5),
        Cost(1, 9, 9),
        Cost(2, 4, 4),
        Cost(3, 0, 7),
        Cost(4, 3, 3),
        Cost(5, 3, 9),
    ]
    # update 0 is groups 0 to 3: 9 | 5 + 4; the silent one goes where fewer tokens are held
    assert owners(costs[:4], 4, 2) == {1: 0, 0: 1, 2: 1, 3: 0}
    # groups 4 and 5 are of the next update, which is balanced by itself
    assert owners(costs, 4, 2) == {1: 0, 0: 1, 2: 1, 5: 0, 4: 1, 3: 1}


def test_one_rank_waits_for_nobody() -> None:
    assert idle_share([3, 4]) == idle_share([]) == idle_share([0]) == 0
