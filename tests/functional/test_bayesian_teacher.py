"""The theory's numbers against published ones, a plain loop, and what it claims."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlrt.functional.bayesian_teacher import (
    bayesian_teacher,
    disagreement,
    divergence,
    influence,
    success_rate,
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_vector_of_the_paper() -> None:
    student, success = tensor(0.5, 0.3, 0.2), tensor(0.9, 0.5, 0.1)
    assert float(success_rate(student, success)) == pytest.approx(0.62, abs=1e-15)
    assert disagreement(student, success).tolist() == pytest.approx(
        [-0.372675285285, 0.215111379617, 1.824549292051], abs=1e-12
    )
    assert float(divergence(student, success)) == pytest.approx(0.243105629652706, abs=1e-15)
    assert float(influence(student, success)) == pytest.approx(0.28, abs=1e-15)


unit = st.just(0.0) | st.floats(1e-30, 1)  # below it the loop's products leave the range of float64
probabilities = st.lists(unit, min_size=2, max_size=6).filter(lambda p: sum(p) > 1e-3)


@given(probabilities, st.data())
def test_any_student_and_any_success(weights: list[float], data: st.DataObject) -> None:
    f = data.draw(st.lists(unit, min_size=len(weights), max_size=len(weights)))
    student = [weight / sum(weights) for weight in weights]
    rate = sum(p * q for p, q in zip(student, f, strict=True))
    if rate < 1e-9:
        return
    teacher = [p * q / rate for p, q in zip(student, f, strict=True)]
    arguments = tensor(*student), tensor(*f)
    assert bayesian_teacher(*arguments).tolist() == pytest.approx(teacher)
    inf = sum(p * abs(q - rate) for p, q in zip(student, f, strict=True))
    assert float(influence(*arguments)) == pytest.approx(inf, abs=1e-12)
    # the proof's first step: Inf = f̄ ‖P_S - P_T‖₁
    distance = sum(abs(p - t) for p, t in zip(student, teacher, strict=True))
    assert inf == pytest.approx(rate * distance, abs=1e-12)
    found = float(divergence(*arguments))
    if all(t > 0 for p, t in zip(student, teacher, strict=True) if p > 0):
        kl = sum(p * math.log(p / t) for p, t in zip(student, teacher, strict=True) if p > 0)
        assert found == pytest.approx(kl, abs=1e-9)
    else:
        assert found == math.inf
    assert inf**2 <= 2 * rate**2 * found * (1 + 1e-9) + 1e-20  # sharper than the theorem


@pytest.mark.parametrize("exponent", range(1, 8))
def test_no_smaller_constant_would_do(exponent: int) -> None:
    epsilon = 10.0**-exponent
    pair = tensor(0.5, 0.5), tensor(1, 1 - epsilon)
    ratio = float(influence(*pair) ** 2 / (2 * divergence(*pair)))
    assert 1 - ratio == pytest.approx(epsilon, rel=3 * epsilon + 1e-2)
    assert ratio < 1


def test_equality_where_all_tokens_are_alike_and_only_there() -> None:
    student = tensor(0.5, 0.3, 0.2)
    for level in (1.0, 0.25):
        alike = tensor(level, level, level)
        assert float(influence(student, alike)) == pytest.approx(0, abs=1e-16)
        assert float(divergence(student, alike)) == pytest.approx(0, abs=1e-30)
    # alike where the student chooses: what it never does is not counted
    never = tensor(0.5, 0.5, 0.0), tensor(0.8, 0.8, 0.1)
    assert float(divergence(*never)) == pytest.approx(0, abs=1e-30)


def test_tokens_that_cannot_succeed() -> None:
    student, success = tensor(0.6, 0.4), tensor(0.5, 0.0)
    assert bayesian_teacher(student, success).tolist() == [1.0, 0.0]
    assert disagreement(student, success).tolist() == [pytest.approx(math.log(0.6)), math.inf]
    assert float(divergence(student, success)) == math.inf
    assert float(divergence(tensor(1.0, 0.0), success)) == 0.0  # never chosen
    lost = tensor(0.0, 0.0)
    for undefined in (bayesian_teacher, disagreement, divergence):
        assert undefined(student, lost).isnan().all()
    assert float(influence(student, lost)) == 0.0


def test_many_positions_at_once_are_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64).softmax(-1)
    success = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    for function in (success_rate, bayesian_teacher, disagreement, divergence, influence):
        alone = [[function(student[i, j], success[i, j]) for j in range(4)] for i in range(3)]
        together = torch.stack([torch.stack(row) for row in alone])
        torch.testing.assert_close(function(student, success), together, rtol=1e-12, atol=0)
