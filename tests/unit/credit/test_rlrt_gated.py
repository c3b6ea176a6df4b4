from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlrt_gated import RLRTGated, top_tokens


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.2, [0, 0, 1, 0, 0]),
        (0.21, [0, 1, 1, 0, 1]),  # two are due, and the second is a tie
        (0.6, [0, 1, 1, 0, 1]),
        (0.8, [1, 1, 1, 0, 1]),
        (1.0, [1, 1, 1, 1, 1]),
    ],
)
def test_the_largest_of_a_response(fraction: float, expected: list[int]) -> None:
    values = torch.tensor([[0.1, 0.5, 0.9, 0.0, 0.5]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert top_tokens(values, mask, fraction)[0].int().tolist() == expected


def test_responses_are_judged_alone_and_padding_is_no_token() -> None:
    values = torch.tensor([[3.0, 2.0, 9.0, 9.0], [0.1, 0.3, 0.2, 0.0], [1.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    expected = [[True, False, False, False], [False, True, False, False], [False] * 4]
    assert top_tokens(values, mask, 0.25).tolist() == expected


def test_rounding_adds_no_token() -> None:
    """0.1 · 30 is a little above 3 in floating point."""
    values = torch.arange(30.0)[None]
    assert int(top_tokens(values, torch.ones(1, 30, dtype=torch.bool), 0.1).sum()) == 3


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7]), min_size=1, max_size=12),
    st.floats(0, 1, exclude_min=True),
)
def test_at_least_the_fraction_and_none_below_one_left_out(
    values: list[float], fraction: float
) -> None:
    values_BT = torch.tensor([values])
    chosen_BT = top_tokens(values_BT, torch.ones_like(values_BT, dtype=torch.bool), fraction)
    assert chosen_BT.any()
    assert int(chosen_BT.sum()) >= fraction * len(values) - 1e-6
    if not chosen_BT.all():
        assert values_BT[chosen_BT].min() > values_BT[~chosen_BT].max()


def test_the_rest_of_a_response_keeps_its_plain_advantage(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 0, 1], teacher_minus_student=[-0.1, -0.1], divergence=[0.2, 0.1])
    gated, everywhere = RLRTGated(fraction=0.5), RLRT()
    assert gated.reads_divergence
    found, full = gated(batch, 0), everywhere(batch, 0)
    assert found.advantages_B is not None
    assert torch.equal(found.advantages_BT[:, 0], full.advantages_BT[:, 0])
    assert torch.equal(found.advantages_BT[:, 1], found.advantages_B)
    assert found.metrics["reweighted_tokens"].sum() == 2
    assert len(found.metrics["reweighted_tokens"]) == 6


def test_with_all_of_a_response_it_is_rlrt(group_of: Callable[..., ScoredBatch]) -> None:
    batch = group_of([1, 0, 1], teacher_minus_student=[-0.1, 0.3], divergence=[0.2, 0.1])
    found = RLRTGated(fraction=1.0)(batch, 0).advantages_BT
    assert torch.equal(found, RLRT()(batch, 0).advantages_BT)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1])
def test_a_fraction_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"credit\.fraction is {value}, it must"):
        RLRTGated(fraction=value)
