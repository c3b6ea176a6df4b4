from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.grpo import GRPO
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlrt_graded import RLRTGraded, correctness

FLIPS = st.floats(0, 0.499)


def of_one_group(rewards: list[float], flip_probability: float) -> list[float]:
    group_B = torch.zeros(len(rewards), dtype=torch.long)
    rewards_B = torch.tensor(rewards, dtype=torch.float64)
    found: list[float] = correctness(rewards_B, group_B, flip_probability).tolist()
    return found


def test_posteriors_worked_out_by_hand() -> None:
    """Mean 1/2, so π = 1/2: an observation is right with 1 - p. Mean 0.6, p 0.1: π = 5/8."""
    assert of_one_group([1, 0], 0.2) == pytest.approx([0.8, 0.2])
    assert of_one_group([1, 0.5, 0], 0.2) == pytest.approx([0.8, 0.5, 0.2])
    one, zero = 45 / 48, 5 / 32
    assert of_one_group([1, 1, 1, 0, 0], 0.1) == pytest.approx([one] * 3 + [zero] * 2)


def test_without_flips_it_is_the_reward_itself() -> None:
    assert of_one_group([1, 0.3, 0], 0) == [1, 0.3, 0]
    assert of_one_group([0, 0], 0) == [0, 0]
    assert of_one_group([1], 0) == [1]


def test_a_group_like_its_noise_is_believed_to_be_of_one_kind() -> None:
    """As many successes (failures) as flips make, or fewer: they are flips."""
    assert of_one_group([1, 0, 0, 0], 0.3) == [0] * 4
    assert of_one_group([1, 1, 1, 0], 0.3) == [1] * 4
    assert of_one_group([0, 0], 0.3) == [0, 0]
    assert of_one_group([1, 1], 0.3) == [1, 1]


def test_a_group_judges_for_itself() -> None:
    rewards_B = torch.tensor([1, 1, 0, 1, 0], dtype=torch.float64)
    found = correctness(rewards_B, torch.tensor([0, 1, 0, 1, 1]), 0.2)
    assert found[[0, 2]].tolist() == pytest.approx([0.8, 0.2])
    assert found[1] == found[3] > 0.8


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), FLIPS)
def test_correctness_is_a_probability_that_rises_with_the_reward(
    rewards: list[float], flip_probability: float
) -> None:
    found = of_one_group(rewards, flip_probability)
    assert all(0 <= value <= 1 for value in found)
    ranked = [value for _, value in sorted(zip(rewards, found, strict=True))]
    assert all(low <= high + 1e-12 for low, high in pairwise(ranked))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8), st.booleans())
def test_with_clean_binary_rewards_it_is_rlrt(
    group_of: Callable[..., ScoredBatch], rewards: list[float], standardize: bool
) -> None:
    batch = group_of(rewards, teacher_minus_student=[0.3, -0.1])
    graded, plain = RLRTGraded(standardize=standardize), RLRT(standardize=standardize)
    assert torch.equal(graded(batch, 0).advantages_BT, plain(batch, 0).advantages_BT)
    assert torch.equal(graded.reads_teacher(batch, 0), plain.reads_teacher(batch, 0))


def test_the_grade_dims_the_weight(group_of: Callable[..., ScoredBatch]) -> None:
    """Clipped at 1.2 for all: λ · c · 0.2 on top of the advantage's own size."""
    batch = group_of([1, 0.9, 0.5, 0], teacher_minus_student=[-5, -5])
    found = RLRTGraded(mixing=0.5, standardize=False)(batch, 0).advantages_BT
    plain = GRPO()(batch, 0).advantages_BT
    # below the mean of 0.6 the same dissent is blamed less, as in RLRT for a negative advantage
    expected = [1 + 0.1, 1 + 0.09, 1 - 0.05, 1]
    assert (found / plain)[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("value", [-0.1, 0.5, 1.0])
def test_a_flip_probability_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"credit\.flip_probability is {value}, it must"):
        RLRTGraded(flip_probability=value)
