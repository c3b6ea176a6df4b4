"""CISPO: a bounded weight, and a gradient for every token."""

import math

import pytest
import torch

from rlrt.loss.policy_loss import CISPO


def test_value_and_gradient_by_hand() -> None:
    logprobs = torch.tensor([-1.0, -0.1, -2.0], dtype=torch.float64, requires_grad=True)
    student = torch.tensor([-1.0, -3.0, -1.0], dtype=torch.float64)
    advantages = torch.tensor([0.5, 0.5, -1.0], dtype=torch.float64)
    response = torch.zeros(3, dtype=torch.long)
    loss = CISPO(2.0, None).token_loss(logprobs, student, advantages, response)
    weights = [1.0, 2.0, math.exp(-1.0)]  # of exp(2.9) only 2 is left
    expected = [-a * w * x for a, w, x in zip([0.5, 0.5, -1], weights, [-1, -0.1, -2], strict=True)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    wanted = [-a * w for a, w in zip([0.5, 0.5, -1], weights, strict=True)]
    assert gradient.tolist() == pytest.approx(wanted, abs=1e-12)
    clipped = CISPO(2.0).clipped(logprobs.detach(), student, advantages, response)
    assert clipped.tolist() == [False, True, False]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.max_weight is 0\.5, it must be at least 1"):
        CISPO(max_weight=0.5)
