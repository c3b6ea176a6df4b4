"""GSPO: one ratio for a response, with the gradient of each token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.loss.policy_loss import GSPO, sequence_ratio

LOGPROBS = [[-1.0, -2.0, -0.5], [-0.3], [-1.1, -0.9]]
STUDENT = [[-1.1, -1.9, -0.8], [-0.3], [-0.1, -0.4]]
ADVANTAGES = [1.0, -0.5, 0.7]


def flat() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    def tensor(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([x for row in rows for x in row], dtype=torch.float64)

    advantages = [[a] * len(row) for a, row in zip(ADVANTAGES, LOGPROBS, strict=True)]
    response = torch.tensor([i for i, row in enumerate(LOGPROBS) for _ in row])
    return tensor(LOGPROBS).requires_grad_(), tensor(STUDENT), tensor(advantages), response


def test_the_ratio_is_the_geometric_mean_of_its_response() -> None:
    logprobs, student, _, response = flat()
    found = sequence_ratio(logprobs, student, response)
    expected = [
        math.exp(sum(a - b for a, b in zip(new, old, strict=True)) / len(new))
        for new, old in zip(LOGPROBS, STUDENT, strict=True)
        for _ in new
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    shuffled = torch.tensor([5, 0, 3, 1, 4, 2])
    torch.testing.assert_close(
        sequence_ratio(logprobs[shuffled], student[shuffled], response[shuffled]), found[shuffled]
    )


@pytest.mark.parametrize("low", [0.5, 3e-4])
def test_equal_credit_gives_the_gradient_of_the_sequence_loss(low: float) -> None:
    """Mean over a response's tokens = the sequence-level loss, value and gradient (eq. 5 and 13)."""
    logprobs, student, advantages, response = flat()
    loss = GSPO(low, low, None).token_loss(logprobs, student, advantages, response)
    total = torch.stack([loss[response == i].mean() for i in range(3)]).sum()
    (found,) = torch.autograd.grad(total, logprobs)

    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        ratio = (logprobs - student)[response == i].mean().exp()
        a = ADVANTAGES[i]
        expected = expected + torch.maximum(-a * ratio, -a * ratio.clamp(1 - low, 1 + low))
    (wanted,) = torch.autograd.grad(expected, logprobs)
    assert total.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=8), st.floats(-2, 2))
def test_finite_and_zero_without_credit(values: list[float], advantage: float) -> None:
    logprobs = torch.tensor(values)
    response = torch.zeros(len(values), dtype=torch.long)
    loss = GSPO().token_loss(logprobs, -logprobs, torch.full_like(logprobs, advantage), response)
    assert torch.isfinite(loss).all()
    assert (loss == 0).all() or advantage != 0


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.clip_low is 0"):
        GSPO(clip_low=0.0)
    with pytest.raises(ValueError, match=r"loss\.clip_high is -1"):
        GSPO(clip_high=-1.0)
