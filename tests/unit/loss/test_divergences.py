import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.paths import GOLDEN
from torch import Tensor

from rlrt.loss.divergences import (
    AlphaDivergence,
    Divergence,
    GeneralizedJSD,
    SampledToken,
    kl,
)

IDS = torch.tensor([1, 4, 0])
ALPHAS = [0.0, 0.25, 0.5, 1.0]
EVERY: list[Divergence] = [
    *(AlphaDivergence(alpha, top_k) for alpha in ALPHAS for top_k in (None, 1, 2, 5, 6)),
    *(GeneralizedJSD(beta, clip) for beta in ALPHAS for clip in (None, 0.03)),
]


def logits(seed: int, vocabulary: int = 6, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = spread * torch.randn(
        2, 3, vocabulary, generator=generator, dtype=torch.float64
    )
    return student.requires_grad_(), teacher


def golden() -> Any:
    if not GOLDEN.exists():
        pytest.skip("needs the reference data in ../shared")
    return json.loads(GOLDEN.read_text())


def test_golden_values() -> None:
    vectors = golden()
    student = torch.tensor(vectors["student_logits"], dtype=torch.float64)
    teacher = torch.tensor(vectors["teacher_logits"], dtype=torch.float64)
    for case in vectors["cases"]:
        found = AlphaDivergence(case["alpha"], case["k"])(student, teacher, IDS[:2])
        assert found.tolist() == pytest.approx(case["values"], rel=0, abs=1e-12), case
        if case["k"] is None:
            found = GeneralizedJSD(case["alpha"])(student, teacher, IDS[:2])
            assert found.tolist() == pytest.approx(case["values"], rel=0, abs=1e-12), case
        if case["k"] is None and case["alpha"] == 1:
            assert kl(student, teacher).tolist() == pytest.approx(case["values"], rel=0, abs=1e-12)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def loop(divergence: Divergence, student: list[float], teacher: list[float]) -> float:
    """The formulas of methods.md, sections 3 and 5, id by id on plain floats."""
    s, t = softmax(student), softmax(teacher)
    clip = math.inf
    if isinstance(divergence, AlphaDivergence):
        weight = divergence.alpha
        k = divergence.top_k
        if k is not None and k < len(s):
            kept = sorted(range(len(s)), key=lambda i: -s[i])[:k]
            s = [*(s[i] for i in kept), 1 - sum(s[i] for i in kept)]
            t = [*(t[i] for i in kept), 1 - sum(t[i] for i in kept)]
    else:
        assert isinstance(divergence, GeneralizedJSD)
        weight = divergence.beta
        clip = divergence.element_clip or math.inf
    total = 0.0
    for p, q in zip(s, t, strict=True):
        mixed = (1 - weight) * p + weight * q
        if weight == 0:
            term = q * math.log(q / p)
        elif weight == 1:
            term = p * math.log(p / q)
        else:
            term = (1 - weight) * p * math.log(p / mixed) + weight * q * math.log(q / mixed)
        total += min(term, clip)
    return total


@pytest.mark.parametrize("divergence", EVERY, ids=repr)
def test_values_equal_a_plain_loop(divergence: Divergence) -> None:
    student, teacher = logits(seed=1)
    expected = [
        loop(divergence, s, t) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    found = divergence(student, teacher, IDS).tolist()
    assert found == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("divergence", EVERY, ids=repr)
def test_gradients_equal_finite_differences(divergence: Divergence) -> None:
    student, teacher = logits(seed=2)
    assert torch.autograd.gradcheck(lambda x: divergence(x, teacher, IDS), student)


def test_element_clip_binds_in_these_tests_and_can_turn_a_loss_negative() -> None:
    student, teacher = logits(seed=1)
    free = GeneralizedJSD(0.25)(student, teacher, IDS)
    assert (GeneralizedJSD(0.25, 0.03)(student, teacher, IDS) < free - 0.001).all()
    assert (GeneralizedJSD(1.0, 0.03)(student, teacher, IDS) < 0).any()


@settings(deadline=None)
@given(
    data=st.data(),
    vocabulary=st.integers(2, 8),
    alpha=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99)),
)
def test_a_bucket_never_raises_a_divergence(
    data: st.DataObject, vocabulary: int, alpha: float
) -> None:
    row = st.lists(st.floats(-20, 20), min_size=vocabulary, max_size=vocabulary)
    student = torch.tensor([data.draw(row)], dtype=torch.float64)
    teacher = torch.tensor([data.draw(row)], dtype=torch.float64)
    top_k = data.draw(st.integers(1, vocabulary))
    bucketed = AlphaDivergence(alpha, top_k)(student, teacher, IDS[:1]).item()
    full = AlphaDivergence(alpha, None)(student, teacher, IDS[:1]).item()
    kept = student.topk(top_k).indices
    rest = [1 - logits.softmax(-1).gather(-1, kept).sum() for logits in (student, teacher)]
    # a bucket counts as 1e-7 at least, which moves a divergence by 1e-7 / e at most
    assert -1e-12 <= bucketed <= full + (1e-12 if min(rest) > 1e-7 else 4e-8)
    if top_k == vocabulary:
        assert bucketed == full


@pytest.mark.parametrize("divergence", [*EVERY, SampledToken()], ids=repr)
def test_the_teacher_gets_no_gradient(divergence: Divergence) -> None:
    student, teacher = logits(seed=3)
    teacher.requires_grad_()
    divergence(student, teacher, IDS).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("divergence", EVERY, ids=repr)
@pytest.mark.parametrize("agree", [True, False])
def test_near_deterministic_views_stay_finite(divergence: Divergence, agree: bool) -> None:
    student = torch.zeros(3, 6)
    student[:, 2] = 1e4
    teacher = student.clone() if agree else student.roll(1, dims=-1)
    student.requires_grad_()
    found = divergence(student, teacher, IDS)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    if agree:
        assert found.abs().max() < 1e-6


@pytest.mark.parametrize("divergence", EVERY, ids=repr)
def test_ids_that_both_views_exclude_change_nothing(divergence: Divergence) -> None:
    # K = V leaves no bucket, so a top-K may not change its meaning with the two more ids
    student, teacher = logits(seed=4)
    excluded = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    if isinstance(divergence, AlphaDivergence) and divergence.top_k == 6:
        divergence = AlphaDivergence(divergence.alpha, None)
    expected = divergence(student, teacher, IDS)
    found = divergence(torch.cat([excluded, student], -1), torch.cat([excluded, teacher], -1), IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), student, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_bucket_of_excluded_ids_alone_is_all_but_empty(alpha: float) -> None:
    student, teacher = logits(seed=4)
    excluded = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    wide = torch.cat([student, excluded], -1), torch.cat([teacher, excluded], -1)
    found = AlphaDivergence(alpha, 6)(*wide, IDS)
    expected = AlphaDivergence(alpha, None)(student, teacher, IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-6)


def test_float32_keeps_the_digits_of_a_small_tail() -> None:
    # the top id holds all but 1e-5, the teacher's all but a half
    student = torch.tensor([[16.0, 3.0, 2.5, 2.0, 1.5, 1.0]], requires_grad=True)
    teacher = torch.tensor([[4.0, 3.0, 2.5, 2.0, 1.5, 1.0]])
    for alpha in ALPHAS:
        found = AlphaDivergence(alpha, 1)(student, teacher, IDS[:1])
        exact_student = student.detach().double().requires_grad_()
        exact = AlphaDivergence(alpha, 1)(exact_student, teacher.double(), IDS[:1])
        torch.testing.assert_close(found, exact.float(), rtol=2e-6, atol=0)
        (gradient,) = torch.autograd.grad(found, student)
        (exact_gradient,) = torch.autograd.grad(exact, exact_student)
        torch.testing.assert_close(gradient, exact_gradient.float(), rtol=1e-4, atol=3e-7)


def test_a_tail_at_its_floor_has_no_gradient() -> None:
    # the top id leaves 1e-8 to the student's others, less than the floor, and the teacher's a half
    student = torch.tensor([[20.0, 0, 0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(AlphaDivergence(0.0, 1)(student, teacher, IDS[:1]), student)
    assert gradient.abs().max() < 1e-7  # -0.08 each, were the tail free


def test_a_top_k_keeps_one_tensor_of_the_logits_size_for_its_backward() -> None:
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(tuple(x.shape)) or x, id):
        AlphaDivergence(0.5, 2)(*logits(seed=10), IDS)
    assert kept.count((3, 6)) == 1


def test_an_id_that_one_view_excludes_costs_what_the_formula_says() -> None:
    some, none = [0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]
    student = torch.tensor([some, none], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([none, some], dtype=torch.float64)
    # by hand: KL of halves from thirds is log(3/2), the other way round infinite
    assert kl(student, teacher).tolist() == pytest.approx([math.log(1.5), math.inf])
    reverse = AlphaDivergence(0.0, None)(student, teacher, IDS[:2])
    assert reverse.tolist() == pytest.approx([math.inf, math.log(1.5)])
    # Jensen-Shannon, by hand: M = 5/12, 5/12, 1/6
    middle = AlphaDivergence(0.5, None)(student, teacher, IDS[:2])
    value = math.log(6 / 5) / 2 + (2 * math.log(4 / 5) + math.log(2)) / 6
    assert middle.tolist() == pytest.approx([value, value], rel=0, abs=1e-12)
    assert torch.autograd.grad(middle.sum(), student)[0].isfinite().all()
    assert torch.autograd.grad(kl(student[:1], teacher[:1]).sum(), student)[0].isfinite().all()


def test_a_broken_logit_is_not_hidden() -> None:
    student, teacher = logits(seed=5)
    broken = student.detach().clone()
    broken[1, 3] = math.nan
    for divergence in [*EVERY, SampledToken()]:
        assert divergence(broken, teacher, IDS).isnan().tolist() == [False, True, False]


def test_sampled_token_has_the_gradient_of_kl_in_expectation() -> None:
    student, teacher = logits(seed=6)
    probs = torch.softmax(student, -1).detach()
    expected_loss = sum(
        (probs[:, v] * SampledToken()(student, teacher, torch.full((3,), v))).sum()
        for v in range(6)
    )
    assert isinstance(expected_loss, Tensor)
    (found,) = torch.autograd.grad(expected_loss, student)
    (expected,) = torch.autograd.grad(kl(student, teacher).sum(), student)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_sampled_token_value() -> None:
    student, teacher = logits(seed=7)
    s, t = (torch.log_softmax(x.detach(), -1).tolist() for x in (student, teacher))
    expected = [(s[i][v] - t[i][v]) * s[i][v] for i, v in enumerate(IDS.tolist())]
    assert SampledToken()(student, teacher, IDS).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("divergence", [*EVERY, SampledToken()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_logits_are_raised_to_float32(
    divergence: Divergence, dtype: torch.dtype
) -> None:
    student, teacher = (x.detach().to(dtype) for x in logits(seed=8))
    found = divergence(student, teacher, IDS)
    assert found.dtype == torch.float32
    exact = divergence(student.double(), teacher.double(), IDS)
    torch.testing.assert_close(found, exact.float(), rtol=1e-4, atol=1e-6)


def test_no_tokens_give_no_values() -> None:
    for divergence in [*EVERY, SampledToken()]:
        assert divergence(torch.empty(0, 6), torch.empty(0, 6), IDS[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AlphaDivergence(alpha=1.5), r"credit\.alpha is 1\.5, .* \[0, 1\]"),
        (lambda: AlphaDivergence(alpha=-0.1), r"credit\.alpha is -0\.1"),
        (lambda: AlphaDivergence(alpha=math.nan), r"credit\.alpha is nan"),
        (lambda: AlphaDivergence(top_k=0), r"credit\.top_k is 0, it must be at least 1"),
        (lambda: GeneralizedJSD(beta=2.0), r"credit\.beta is 2\.0, .* \[0, 1\]"),
        (lambda: GeneralizedJSD(element_clip=0.0), r"credit\.element_clip is 0\.0, .* positive"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[[], Divergence], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_more_ids_than_the_vocabulary_has_are_refused() -> None:
    with pytest.raises(AssertionError, match="top 7 of a vocabulary of 6"):
        AlphaDivergence(top_k=7)(*logits(seed=9), IDS)
