"""What a step samples: judged groups, groups asked again, flipped rewards, penalties."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.processes import call_ranks
from tests.scripted_judge import ScriptedJudge
from tests.unit.training.step import step_of

from rlrt import distributed
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.credit.grpo import GRPO
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import OnFinished, Sampling
from rlrt.training.performance import idle_share
from rlrt.training.sampler import (
    Cost,
    RolloutSettings,
    Sampler,
    balanced,
    costs_of,
    owners,
    soft_overlong_penalty,
)


def test_the_penalty_by_hand() -> None:
    """DAPO's figures: 20480 tokens, a buffer of 4096."""
    found = [soft_overlong_penalty(n, 20480, 4096) for n in (0, 16384, 17408, 18432, 20480)]
    assert found == [0.0, 0.0, -0.25, -0.5, -1.0]


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


@pytest.mark.slow
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
    assert first.total == prompt + sum(len(rollout.response.ids) for rollout in members)
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


K = 4
SETTINGS = RolloutSettings(
    seed=1,
    rollouts_per_problem=K,
    problems_per_update=2,
    temperature=1.0,
    max_response_tokens=10,
    max_model_tokens=100,
)


class Echo:
    """An engine whose responses are (problem number, something of the seed, place in the call)."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished,
    ) -> list[Response]:
        self.calls.append([prompt[0] for prompt in prompts])
        responses = [
            Response((prompt[0], seed % 7, place), (-1.0, -1.0, -1.0), truncated=False)
            for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        for place, response in reversed([*enumerate(responses)]):  # the last one ends first
            on_finished(place, response)
        return responses


class Numbers:
    """Prompts that hold a problem's number."""

    def student_ids(self, question: str, preceding: object = ()) -> tuple[int, ...]:
        return (int(question),)


@dataclass
class Rules(ScriptedJudge):
    """Problems below 10 are all right, above 90 all wrong, others right in even places."""

    flip_probability: float = 0.0

    @property
    def verifier(self) -> "Rules":
        return self

    def is_right(self, response: Response) -> bool:
        first, _, third = response.ids[:3]
        return first < 10 or (first <= 90 and third % 2 == 0)


@contextmanager
def clock(stage: str) -> Iterator[None]:
    yield


def problem(number: int) -> Problem:
    return Problem(str(number), str(number), "", "test")


def groups(*numbers: int) -> list[tuple[int, Problem]]:
    """Problems of these numbers, as groups 0, 1, ..."""
    return [(group, problem(number)) for group, number in enumerate(numbers)]


def sampler(settings: RolloutSettings, rules: Rules) -> tuple[Sampler, Echo]:
    engine = Echo()
    prompts: Prompts = Numbers()  # type: ignore[assignment]
    return Sampler(settings, engine, prompts, rules), engine  # type: ignore[arg-type]


def never() -> Iterator[Problem]:
    raise AssertionError("no group was to be asked again")
    yield problem(0)


def test_every_problem_gets_its_rollouts_in_one_call() -> None:
    sample, engine = sampler(SETTINGS, Rules())
    found = sample(groups(1, 50, 95), 0, never(), clock)
    assert engine.calls == [[1] * K + [50] * K + [95] * K]
    assert [(r.group, r.sample, r.problem.id) for r in found.rollouts] == [
        (group, k, name) for group, name in enumerate(["1", "50", "95"]) for k in range(K)
    ]
    assert (found.resampled_groups, found.discarded_tokens) == (0, 0)
    digits = {r.response.ids[1] for r in found.rollouts}
    assert len(digits) > 3  # every sample has its own seed


def test_groups_without_a_signal_are_replaced_up_to_the_limit() -> None:
    names = [2, 60, 70, 80]
    sample, engine = sampler(replace(SETTINGS, resample_rounds=5), Rules())
    spare = iter([problem(name) for name in names])
    found = sample(groups(1, 50, 95), 3, spare, clock)
    # 1 and 95 said nothing, then 2 did not; then all groups speak
    assert engine.calls[1:] == [[2] * K + [60] * K, [70] * K]
    assert [p.id for p in spare] == ["80"]
    assert [r.problem.id for r in found.rollouts[::K]] == ["70", "50", "60"]
    assert [r.group for r in found.rollouts] == [g for g in range(3) for _ in range(K)]
    assert (found.resampled_groups, found.discarded_tokens) == (3, 3 * K * 3)

    limited, engine = sampler(replace(SETTINGS, resample_rounds=1), Rules())
    spare = iter([problem(name) for name in names])
    kept = limited(groups(1, 50, 95), 3, spare, clock)
    assert len(engine.calls) == 2
    assert [r.problem.id for r in kept.rollouts[::K]] == ["2", "50", "60"]


def test_groups_keep_the_numbers_of_the_whole_step() -> None:
    """A rank's share: seeds and replacements go by the numbers within the step."""
    whole, _ = sampler(replace(SETTINGS, resample_rounds=1), Rules())
    every = whole(groups(1, 50, 95), 3, iter([problem(60), problem(70)]), clock).rollouts
    share, _ = sampler(replace(SETTINGS, resample_rounds=1), Rules())
    own = share(groups(1, 50, 95)[2:], 3, iter([problem(70)]), clock).rollouts
    assert [(r.group, r.problem.id, r.response.ids[1]) for r in own] == [
        (r.group, r.problem.id, r.response.ids[1]) for r in every if r.group == 2
    ]


def test_too_few_other_problems_leave_a_group_as_it_is() -> None:
    sample, _ = sampler(replace(SETTINGS, resample_rounds=2), Rules())
    found = sample(groups(1, 95), 0, iter([]), clock)
    assert [r.problem.id for r in found.rollouts[::K]] == ["1", "95"]


def test_flipped_rewards_leave_the_verdicts_and_can_be_repeated() -> None:
    many = groups(*(1 + n % 9 for n in range(200)))  # all right
    sample, _ = sampler(SETTINGS, Rules(flip_probability=0.25))
    found = sample(many, 0, never(), clock).rollouts
    assert all(rollout.verdict is Verdict.RIGHT for rollout in found)
    flipped = [rollout.reward == 0.0 for rollout in found]
    assert {rollout.reward for rollout in found} == {0.0, 1.0}
    assert sum(flipped) / len(flipped) == pytest.approx(0.25, abs=0.05)
    assert flipped == [r.reward == 0.0 for r in sample(many, 0, never(), clock).rollouts]
    assert flipped != [r.reward == 0.0 for r in sample(many, 1, never(), clock).rollouts]


def test_the_overlong_penalty_stands_beside_the_reward() -> None:
    settings = replace(SETTINGS, max_response_tokens=3, overlong_buffer=3)
    sample, _ = sampler(settings, Rules())
    found = sample(groups(1), 0, never(), clock).rollouts
    assert {(rollout.reward, rollout.penalty) for rollout in found} == {(1.0, -1.0)}
