from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import ScoredBatch
from rlrt.credit.grpo import GRPO
from rlrt.credit.reweighting import Reweighting, token_multipliers
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlrt_all import RLRTAll
from rlrt.credit.rlsd import RLSD
from rlrt.credit.teacher_favoring import TeacherFavoring

FAMILY = [RLSD, RLRT, RLRTAll, TeacherFavoring]


def batch() -> ScoredBatch:
    """One group, rewards 1 0 1 0, two tokens each; the teacher likes the first, not the second."""
    student = torch.full((4, 2), -1.0, dtype=torch.float64)
    every = torch.ones(4, dtype=torch.bool)
    return ScoredBatch(
        group_B=torch.zeros(4, dtype=torch.long),
        rewards_B=torch.tensor([1, 0, 1, 0], dtype=torch.float64),
        penalty_B=torch.zeros(4, dtype=torch.float64),
        response_mask_BT=torch.ones(4, 2, dtype=torch.bool),
        engine_logprobs_BT=student,
        student_logprobs_BT=student,
        student_entropy_BT=student.abs(),
        has_context_B=every,
        teacher_scored_B=every,
        teacher_logprobs_BT=student + torch.tensor([0.5, -0.5], dtype=torch.float64),
        teacher_entropy_BT=student.abs(),
        divergence_BT=student.abs(),
        responses=("",) * 4,
    )


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


def test_who_is_paid_for_what() -> None:
    """Credit of (agreed, dissented) token over the advantage, on a right and on a wrong rollout."""
    found = {
        method.__name__: method(mixing=1.0, clip_radius=1.0, standardize=False)(
            batch(), 0
        ).advantages_BT
        for method in FAMILY
    }
    more, less = 0.5**0 * torch.e**0.5, torch.e**-0.5
    expected = {
        "RLSD": ([more, less], [less, more]),
        "RLRT": ([less, more], [1, 1]),
        "RLRTAll": ([less, more], [more, less]),
        "TeacherFavoring": ([more, less], [1, 1]),
    }
    for name, (right, wrong) in expected.items():
        assert (found[name][0] / 0.5).tolist() == pytest.approx(right, abs=1e-12)
        assert (found[name][1] / -0.5).tolist() == pytest.approx(wrong, abs=1e-12)


@pytest.mark.parametrize("method", FAMILY)
def test_without_mixing_it_is_grpo_and_reads_no_teacher(method: type[Reweighting]) -> None:
    scored = batch()
    plain = GRPO(standardize=True)(scored, 0).advantages_BT
    off = method(mixing=0.0)
    assert torch.equal(off(scored, 0).advantages_BT, plain)
    assert not off.reads_teacher(scored, 0).any()
    faded = method(mixing=0.5, mixing_decay_steps=10)
    assert torch.equal(faded(scored, 10).advantages_BT, plain)
    assert not faded.reads_teacher(scored, 10).any()
    assert faded.reads_teacher(scored, 9).any()


def test_mixing_decays_linearly_from_step_zero() -> None:
    method = RLRT(mixing=0.5, mixing_decay_steps=4)
    assert [method.mixing_at(step) for step in range(6)] == [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    assert RLRT(mixing=0.5).mixing_at(10**6) == 0.5


@pytest.mark.parametrize("method", FAMILY)
def test_without_a_teacher_a_rollout_keeps_its_plain_advantage(method: type[Reweighting]) -> None:
    unscored = replace(batch(), teacher_scored_B=torch.zeros(4, dtype=torch.bool))
    plain = GRPO(standardize=True)(unscored, 0).advantages_BT
    credit = method()(unscored, 0)
    assert torch.equal(credit.advantages_BT, plain)
    assert credit.metrics["weight_mean"] == 1.0


def test_rlrt_asks_only_for_correct_rollouts_of_mixed_groups() -> None:
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    assert RLRT().reads_teacher(rewards, group, 0).tolist() == [True] + [False] * 5
    assert RLSD().reads_teacher(rewards, group, 0).tolist() == [True, True] + [False] * 4


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
