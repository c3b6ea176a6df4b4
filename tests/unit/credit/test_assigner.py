import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.credit.assigner import group_advantages, has_signal


def slow_advantages(rewards: list[float], groups: list[int], standardize: bool) -> list[float]:
    result = []
    for reward, group in zip(rewards, groups, strict=True):
        peers = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        mean = sum(peers) / len(peers)
        if len(set(peers)) == 1:
            result.append(0.0)
            continue
        variance = sum((peer - mean) ** 2 for peer in peers) / (len(peers) - 1)
        result.append((reward - mean) / (variance**0.5 + 1e-6 if standardize else 1.0))
    return result


@pytest.mark.parametrize("standardize", [False, True])
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.1, 0.3, 1.0])), min_size=1)
)
def test_advantages_equal_a_loop_over_groups(
    standardize: bool, rows: list[tuple[int, float]]
) -> None:
    groups, rewards = zip(*rows, strict=True)
    found = group_advantages(
        torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups), standardize
    )
    torch.testing.assert_close(
        found.tolist(),
        slow_advantages(list(rewards), list(groups), standardize),
        rtol=1e-9,
        atol=1e-12,
    )


def test_equal_rewards_give_exactly_zero_despite_rounding() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.7, 0.7, 0.7])
    group = torch.tensor([5, 5, 5, 2, 2, 2])
    for standardize in (False, True):
        assert group_advantages(rewards, group, standardize).tolist() == [0.0] * 6
    assert not has_signal(rewards, group).any()


def test_a_group_of_one_has_no_advantage() -> None:
    found = group_advantages(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0, 1, 1]), True)
    assert found[0] == 0.0
    assert found[1] == -found[2] != 0.0
