import math

import pytest
import torch

from rlrt.loss.policy_loss import ClippedSurrogate, clipped_surrogate, rollout_correction


def slow_loss(logprob: float, student: float, advantage: float) -> float:
    ratio = math.exp(logprob - student)
    clipped = min(max(ratio, 0.8), 1.28)
    loss = max(-advantage * ratio, -advantage * clipped)
    return min(loss, -3 * advantage) if advantage < 0 else loss


def test_equals_a_loop_over_tokens() -> None:
    values = [-3.0, -1.2, -0.7, -0.1]
    cases = [(a, b, c) for a in values for b in values for c in (-2.0, -0.5, 0.0, 0.5, 2.0)]
    logprobs, student, advantages = torch.tensor(cases, dtype=torch.float64).T
    found = clipped_surrogate(logprobs, student, advantages, 0.2, 0.28, 3.0)
    assert found.tolist() == pytest.approx([slow_loss(*case) for case in cases], abs=1e-12)


def test_no_advantage_gives_exactly_no_loss() -> None:
    far = torch.tensor([-1.0, -80.0, 0.0])
    assert clipped_surrogate(far, far.flip(0), torch.zeros(3), 0.2, 0.28, 3.0).tolist() == [0, 0, 0]


def test_the_ratio_never_overflows() -> None:
    found = clipped_surrogate(
        torch.tensor([0.0]), torch.tensor([-1e4]), torch.tensor([-1.0]), 0.2, 0.28, None
    )
    assert torch.isfinite(found).all()


def test_correction_is_truncated_and_detached() -> None:
    student = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    weight = rollout_correction(student, torch.tensor([-1.0, -9.0, -0.5], dtype=torch.float64), 2.0)
    assert weight.tolist() == pytest.approx([1.0, 2.0, math.exp(-0.5)], abs=1e-12)
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("clip_low", 0.0),
        ("clip_low", 1.0),
        ("clip_high", 0.0),
        ("dual_clip", 1.0),
        ("rollout_correction_limit", 0.5),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"loss\.{setting} is {value}"):
        ClippedSurrogate(**{setting: value})
