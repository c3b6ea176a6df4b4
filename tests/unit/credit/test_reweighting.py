from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.grpo import GRPO
from rlrt.credit.outcome_routed import OutcomeRouted
from rlrt.credit.reweighting import Reweighting, token_multipliers
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlrt_all import RLRTAll
from rlrt.credit.rlrt_gated import RLRTGated
from rlrt.credit.rlrt_graded import RLRTGraded
from rlrt.credit.rlsd import RLSD
from rlrt.credit.teacher_favoring import TeacherFavoring

FAMILY = [RLSD, RLRT, RLRTAll, TeacherFavoring, OutcomeRouted, RLRTGraded, RLRTGated]


@pytest.fixture
def batch(group_of: Callable[..., ScoredBatch]) -> ScoredBatch:
    """One group, rewards 1 0 1 0, two tokens each; the teacher likes the first, not the second."""
    return group_of([1, 0, 1, 0], teacher_minus_student=[0.5, -0.5])


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1),
    st.floats(0, 1),
    st.floats(0, 1, exclude_min=True),
)
def test_multipliers_stay_within_their_bound(
    log_weights: list[float], mixing: float, radius: float
) -> None:
    found, _ = token_multipliers(torch.tensor(log_weights, dtype=torch.float64), mixing, radius)
    assert ((found - 1).abs() <= mixing * radius + 1e-15).all()


def test_who_is_paid_for_what(batch: ScoredBatch) -> None:
    """Credit of (agreed, dissented) token over the advantage, on a right and on a wrong rollout."""
    found = {
        method.__name__: method(mixing=1.0, clip_radius=1.0, standardize=False)(
            batch, 0
        ).advantages_BT
        for method in FAMILY
    }
    more, less = 0.5**0 * torch.e**0.5, torch.e**-0.5
    expected = {
        "RLSD": ([more, less], [less, more]),
        "RLRT": ([less, more], [1, 1]),
        "RLRTAll": ([less, more], [more, less]),
        "TeacherFavoring": ([more, less], [1, 1]),
        "OutcomeRouted": ([less, more], [less, more]),
        "RLRTGraded": ([less, more], [1, 1]),
        "RLRTGated": ([less, more], [1, 1]),
    }
    for name, (right, wrong) in expected.items():
        assert (found[name][0] / 0.5).tolist() == pytest.approx(right, abs=1e-12)
        assert (found[name][1] / -0.5).tolist() == pytest.approx(wrong, abs=1e-12)


@pytest.mark.parametrize("method", FAMILY)
def test_without_mixing_it_is_grpo_and_reads_no_teacher(
    method: type[Reweighting], batch: ScoredBatch
) -> None:
    plain = GRPO(standardize=True)(batch, 0).advantages_BT
    off = method(mixing=0.0)
    assert torch.equal(off(batch, 0).advantages_BT, plain)
    assert not off.reads_teacher(batch, 0).any()
    faded = method(mixing=0.5, mixing_decay_steps=10)
    assert torch.equal(faded(batch, 10).advantages_BT, plain)
    assert not faded.reads_teacher(batch, 10).any()
    assert faded.reads_teacher(batch, 9).any()


def test_mixing_decays_linearly_from_step_zero() -> None:
    method = RLRT(mixing=0.5, mixing_decay_steps=4)
    assert [method.mixing_at(step) for step in range(6)] == [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    assert RLRT(mixing=0.5).mixing_at(10**6) == 0.5


@pytest.mark.parametrize("method", FAMILY)
def test_without_a_teacher_a_rollout_keeps_its_plain_advantage(
    method: type[Reweighting], batch: ScoredBatch
) -> None:
    unscored = replace(batch, teacher_scored_B=torch.zeros(4, dtype=torch.bool))
    plain = GRPO(standardize=True)(unscored, 0).advantages_BT
    credit = method()(unscored, 0)
    assert torch.equal(credit.advantages_BT, plain)
    assert credit.metrics["weight_mean"].tolist() == []


def test_rlrt_asks_only_for_correct_rollouts_of_mixed_groups(
    group_of: Callable[..., ScoredBatch],
) -> None:
    outcomes = group_of([1, 0, 1, 1, 0, 0], groups=[0, 0, 1, 1, 2, 2])
    assert RLRT().reads_teacher(outcomes, 0).tolist() == [True] + [False] * 5
    assert RLSD().reads_teacher(outcomes, 0).tolist() == [True, True] + [False] * 4


def test_a_penalty_makes_a_signal_but_nothing_incorrect(
    group_of: Callable[..., ScoredBatch],
) -> None:
    """Advantages are formed from reward and penalty; what is correct the reward alone says."""
    outcomes = group_of([1, 1], penalties=[-0.9, 0])
    assert RLRT().reads_teacher(outcomes, 0).tolist() == [True, True]
    advantages_B = GRPO()(outcomes, 0).advantages_B
    assert advantages_B is not None
    assert advantages_B.tolist() == pytest.approx([-0.45, 0.45])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mixing", -0.1),
        ("mixing", 1.1),
        ("clip_radius", 0),
        ("clip_radius", 1.5),
        ("mixing_decay_steps", 0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"credit\.{setting} is {value}, it must"):
        RLRT(**{setting: value})
