from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.diver import (
    DIVER,
    MAX_TEXT_DIVERSITY,
    equation_diversity,
    formulas,
    text_diversity,
)
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(x=1\), \[ y = 2 \] and $z=3$", {"x=1", "y = 2", "z=3"}),
        ("$$x=1$$ and \\[a\nb\\]", {"x=1", "a\nb"}),
        (r"\(f(x)=[1]\)", {"f(x)=[1]"}),  # brackets within are no delimiters
        (r"\(a\) \(a\) $a$", {"a"}),
        (r"costs \$5, or \$6", set()),
        (r"$$ a \\[4pt] b $$", {r"a \\[4pt] b"}),  # a line break with a skip
        (r"\( unclosed, then \(x\)", {"x"}),
        (r"x\) and \] never opened", set()),
        (r"\(x\] and \[y", set()),
        (r"\[a \(b\) c\]", {r"a \(b\) c", "b"}),
        (r"\(\) $ $", set()),
        ("no formulas, one \\", set()),
    ],
)
def test_formulas(text: str, expected: set[str]) -> None:
    assert formulas(text) == expected


@pytest.mark.parametrize("opener", [r"\[", r"\(", "$", r"\(\[", "$$ $ ", "\\"])
def test_hostile_text_costs_no_more_than_its_length(opener: str) -> None:
    """A scan to the end from every one of these openers would read 10^11 characters."""
    formulas(opener * 300_000)
    formulas(opener * 300_000 + r"x\)\]$")


@given(st.text(alphabet="ab\\()[]$ ", max_size=40))
def test_any_text_gives_stripped_formulas_that_stand_in_it(text: str) -> None:
    for formula in formulas(text):
        assert formula == formula.strip() != ""
        assert formula in text


def test_equation_diversity_by_hand() -> None:
    group = [r"\(x\) \(y\) \(z\)", r"\(x\) \(v\) \(z\)", r"\(a\) \(z\)", "none"]
    assert equation_diversity(group, range(4)) == pytest.approx([1 / 3, 1 / 3, 1 / 2, 0])
    assert equation_diversity(group, [2]) == [1 / 2]
    assert equation_diversity([r"\(x\)"], [0]) == [1]  # alone: nobody else has it


def test_text_diversity_by_hand() -> None:
    """Six words against their first five: precisions 5/6, 4/5, 3/4, 2/3, 1/2, and 1 the other way."""
    longer, shorter = "a b c d e f", "a b c d e"
    to_shorter = (
        (5 / 6) ** 0.02 * (4 / 5) ** 0.1 * (3 / 4) ** 0.15 * (2 / 3) ** 0.25 * (1 / 2) ** 0.38
    )
    to_longer = 2.718281828459045 ** (1 - 6 / 5)  # brevity penalty
    expected = 1 - (to_shorter + to_longer) / 2
    assert text_diversity([longer, shorter], [0, 1]) == pytest.approx([expected] * 2, abs=1e-6)
    third = [longer, shorter, "g h i j k l"]
    assert text_diversity(third, [0]) == pytest.approx([(expected + 1) / 2], abs=1e-6)


def test_text_diversity_of_extremes() -> None:
    words = "one two three four five six"
    assert text_diversity([words, words], [0]) == pytest.approx([0], abs=1e-6)
    assert text_diversity([words, "u v w x y z"], [0]) == [MAX_TEXT_DIVERSITY]
    assert text_diversity(["one two", "one two"], [0]) == [MAX_TEXT_DIVERSITY]  # no 5-gram
    assert text_diversity([words, ""], [0, 1]) == [MAX_TEXT_DIVERSITY] * 2
    assert text_diversity([words], [0]) == [0]
    assert text_diversity([words, words], []) == []
