from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlrt.batch import ScoredBatch
from rlrt.credit.diver import DIVER
from rlrt.credit.grpo import GRPO

SAME, OTHER = r"\(x=1\) and \(y=2\)", r"\(x=1\) and \(z=3\)"


def advantages(diver: DIVER, batch: ScoredBatch, step: int = 0) -> list[float]:
    found = diver(batch, step).advantages_B
    assert found is not None
    values: list[float] = found.tolist()
    return values


def test_only_correct_rollouts_are_paid_for_their_difference(
    group_of: Callable[..., ScoredBatch],
) -> None:
    """The wrong response, with formulas of its own, gets nothing; one of the right ones 0.1 · 0.42."""
    batch = group_of([1, 1, 1, 0], responses=[SAME, SAME, OTHER, r"\(q=9\)"])
    diver = DIVER(standardize=False)
    assert diver.diversities(batch).tolist() == [0, 0, 0.5, 0]
    mean = (3 + 0.042) / 4
    expected = [1 - mean, 1 - mean, 1.042 - mean, -mean]
    assert advantages(diver, batch) == pytest.approx(expected)
    credit = diver(batch, 0)
    assert credit.metrics["diversity_mean"].tolist() == [0, 0, 0.5]


def test_a_group_of_right_rollouts_gets_credit_for_its_differences(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 1, 1], responses=[SAME, SAME, OTHER])
    assert advantages(DIVER(standardize=False), batch) == pytest.approx([-0.014, -0.014, 0.028])


def test_groups_are_compared_within_themselves(group_of: Callable[..., ScoredBatch]) -> None:
    batch = group_of([1, 1, 1, 1], groups=[0, 1, 0, 1], responses=[SAME, SAME, SAME, OTHER])
    assert DIVER().diversities(batch).tolist() == [0, 0.5, 0, 0.5]


@pytest.mark.parametrize("diversity", ["equation", "text"])
@pytest.mark.parametrize(
    ("rewards", "responses"),
    [([0, 0], [SAME, OTHER]), ([1, 1], [SAME, SAME]), ([1], [SAME]), ([1, 1], ["", ""])],
)
def test_groups_without_a_difference_to_pay_get_no_credit(
    group_of: Callable[..., ScoredBatch], diversity: Any, rewards: list[int], responses: list[str]
) -> None:
    assert not any(advantages(DIVER(diversity), group_of(rewards, responses=responses)))


def test_from_its_last_step_on_it_is_grpo(group_of: Callable[..., ScoredBatch]) -> None:
    batch = group_of([1, 1, 0], responses=[SAME, OTHER, ""], lengths=[1, 2, 2])
    plain = GRPO(standardize=True)(batch, 0).advantages_BT
    diver = DIVER(until_step=3)
    assert [torch.equal(diver(batch, step).advantages_BT, plain) for step in (2, 3)] == [
        False,
        True,
    ]
    assert [bool(diver(batch, step).metrics["diversity_mean"].any()) for step in (2, 3)] == [
        True,
        False,
    ]
    assert torch.equal(DIVER(weight=0)(batch, 0).advantages_BT, plain)
    assert DIVER(until_step=None).is_on(10**6)


def test_the_ceiling_is_the_papers_unless_set() -> None:
    assert [DIVER("equation").ceiling, DIVER("text").ceiling] == [0.42, 0.68]
    assert DIVER("text", ceiling=0.3).ceiling == 0.3


def test_a_length_penalty_stays_in_the_shaped_reward(group_of: Callable[..., ScoredBatch]) -> None:
    batch = group_of([1, 1], responses=[SAME, OTHER], penalties=[-0.5, 0])
    assert advantages(DIVER(standardize=False), batch) == pytest.approx([-0.25, 0.25])


@pytest.mark.parametrize(
    "settings",
    [
        {"diversity": "color"},
        {"weight": -1.0},
        {"ceiling": 0.0},
        {"ceiling": 1.1},
        {"until_step": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=rf"credit\.{name} is {value!r}, it must"):
        DIVER(**settings)
