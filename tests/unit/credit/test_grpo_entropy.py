from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.grpo import GRPO
from rlrt.credit.grpo_entropy import GRPOEntropy

REWARDS = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def test_worked_out_by_hand(group_of: Callable[..., ScoredBatch]) -> None:
    """A = ±1/2, at most half of it on top: 0.4 · 0.5 = 0.2 fits, 0.4 · 1 does not."""
    credit = GRPOEntropy()(group_of([1, 0], student_entropy=[0.5, 1.0]), 0)
    assert credit.advantages_BT.flatten().tolist() == pytest.approx([0.7, 0.75, -0.3, -0.25])
    means = {name: float(values.double().mean()) for name, values in credit.metrics.items()}
    assert means == pytest.approx({"bonus_mean": 0.225, "bonus_capped": 0.5})


@given(REWARDS, st.floats(0, 10), st.floats(1, 10, exclude_min=True), st.floats(0, 12))
def test_the_bonus_never_turns_the_sign(
    group_of: Callable[..., ScoredBatch],
    rewards: list[float],
    weight: float,
    cap: float,
    entropy: float,
) -> None:
    batch = group_of(rewards, student_entropy=entropy)
    plain = GRPO()(batch, 0).advantages_BT
    found = GRPOEntropy(weight, cap)(batch, 0).advantages_BT
    assert (found >= plain).all()
    assert (found * plain >= 0).all()
    assert torch.equal(found == 0, plain == 0)


def test_without_weight_it_is_grpo(group_of: Callable[..., ScoredBatch]) -> None:
    batch = group_of([1, 0, 1])
    found = GRPOEntropy(entropy_weight=0)(batch, 0).advantages_BT
    assert torch.equal(found, GRPO()(batch, 0).advantages_BT)


def test_an_entropy_rounded_below_zero_takes_nothing_away(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 0], student_entropy=-1e-6)
    found = GRPOEntropy()(batch, 0).advantages_BT
    assert torch.equal(found, GRPO()(batch, 0).advantages_BT)


@pytest.mark.parametrize(("setting", "value"), [("entropy_weight", -0.1), ("cap", 1.0)])
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"credit\.{setting} is {value}, it must"):
        GRPOEntropy(**{setting: value})
