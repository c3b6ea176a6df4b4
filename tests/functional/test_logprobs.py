import pytest
import torch
from tests.functional.heads import DIVERGENCES, Products, split_by, two_models
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlrt.functional.divergences import AlphaDivergence, Divergence, SampledToken
from rlrt.functional.logprobs import distilled_tokens, token_logprobs


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_distilled_chunks_equal_whole_logits_in_value_and_gradient(
    divergence: Divergence, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(monkeypatch, chunk)
    student, student_head, teacher, teacher_head, ids = two_models(7)
    weight = torch.linspace(-1, 2, 7, dtype=torch.float64)

    found, logprobs = distilled_tokens(
        student, student_head, teacher, teacher_head, ids, 0.7, divergence
    )
    (found * weight).sum().backward()
    logits = student @ student_head.T / 0.7
    expected = divergence(logits, teacher @ teacher_head.T / 0.7, ids)
    gradients = torch.autograd.grad((expected * weight).sum(), (student, student_head))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close((student.grad, student_head.grad), gradients, rtol=0, atol=1e-12)
    plain = torch.log_softmax(logits, -1)[torch.arange(7), ids].detach()
    torch.testing.assert_close(logprobs, plain, rtol=0, atol=1e-12)
    assert not logprobs.requires_grad
    assert teacher.grad is None
    assert teacher_head.grad is None


def test_no_more_logits_than_the_budget_reach_the_divergence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split_by(monkeypatch, 2)
    rows = []

    def record(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> Tensor:
        rows.append(tuple(student_nV.shape))
        return (student_nV - teacher_nV.detach()).square().sum(-1)

    found, _ = distilled_tokens(*two_models(5), 1.0, record)
    assert rows == [(2, 11), (2, 11), (1, 11)]
    found.sum().backward()
    assert len(rows) == 6  # the backward computes each chunk anew instead of keeping it


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_no_tokens_distil_to_nothing_with_a_gradient_of_zero(divergence: Divergence) -> None:
    student, student_head, teacher, teacher_head, ids = two_models(0)
    found, logprobs = distilled_tokens(
        student, student_head, teacher, teacher_head, ids, 1.0, divergence
    )
    assert found.shape == logprobs.shape == (0,)
    found.sum().backward()
    assert student_head.grad is None or not student_head.grad.any()


def test_low_precision_models_are_scored_in_float32() -> None:
    *models, ids = two_models(4)
    hidden, head, *teacher = [part.detach().bfloat16() for part in models]
    found, logprobs = distilled_tokens(
        hidden, head, teacher[0], teacher[1], ids, 1.0, AlphaDivergence(0.5, 3)
    )
    assert found.dtype == logprobs.dtype == torch.float32
    assert token_logprobs(hidden, head, ids, 1.0)[0].dtype == torch.float32


def test_two_vocabularies_are_refused() -> None:
    student, student_head, teacher, teacher_head, ids = two_models(2)
    with pytest.raises(AssertionError, match="a student's vocabulary of 11, a teacher's of 10"):
        distilled_tokens(
            student, student_head, teacher, teacher_head[:10], ids, 1.0, SampledToken()
        )


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("divergence", [None, AlphaDivergence(0.5, 3)], ids=repr)
def test_gradients_equal_finite_differences_for_hidden_states_and_head_each_alone(
    divergence: Divergence | None, needs: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(monkeypatch, 2)
    hidden, head, *teacher, ids = two_models(5)

    def value(hidden_NH: Tensor, head_VH: Tensor) -> Tensor:
        if divergence is None:
            return token_logprobs(hidden_NH, head_VH, ids, 0.7)[0]
        return distilled_tokens(hidden_NH, head_VH, *teacher, ids, 0.7, divergence)[0]

    student = [part.requires_grad_(need) for part, need in zip((hidden, head), needs, strict=True)]
    assert torch.autograd.gradcheck(value, student)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_inside_a_checkpoint_the_gradient_is_the_same_to_the_bit(divergence: Divergence) -> None:
    student, head, *teacher, ids = two_models(6)

    def loss(student_NH: Tensor) -> Tensor:
        values, _ = distilled_tokens(student_NH.tanh(), head, *teacher, ids, 0.7, divergence)
        return values.square().sum()

    plain = torch.autograd.grad(loss(student), (student, head))
    again = torch.autograd.grad(checkpoint(loss, student, use_reentrant=False), (student, head))
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def test_without_grad_mode_no_graph_is_kept() -> None:
    student, head, *teacher, ids = two_models(4)
    with torch.no_grad():
        values, _ = distilled_tokens(student, head, *teacher, ids, 0.7, SampledToken())
    assert values.grad_fn is None


def test_what_is_not_asked_for_is_not_there_and_changes_nothing() -> None:
    student, head, *teacher, ids = two_models(6)
    full, _ = token_logprobs(student, head, ids, 0.7)
    alone, entropy = token_logprobs(student, head, ids, 0.7, entropy=False)
    assert entropy is None
    torch.testing.assert_close(alone, full, rtol=0, atol=0)
    gradients = [torch.autograd.grad(values.sum(), (student, head)) for values in (full, alone)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    for divergence in DIVERGENCES:
        full, _ = distilled_tokens(student, head, *teacher, ids, 0.7, divergence)
        alone, nothing = distilled_tokens(
            student, head, *teacher, ids, 0.7, divergence, logprobs=False
        )
        assert nothing is None
        torch.testing.assert_close(alone, full, rtol=0, atol=0)
        alone.sum().backward()


@pytest.mark.parametrize("needed", [0, 1])
@pytest.mark.parametrize("divergence", [None, *DIVERGENCES], ids=repr)
def test_what_needs_no_gradient_costs_no_product(
    divergence: Divergence | None, needed: int
) -> None:
    hidden, head, *teacher, ids = two_models(6)
    parts = [hidden.detach(), head.detach()]
    parts[needed].requires_grad_()
    if divergence is None:
        values = token_logprobs(*parts, ids, 0.7)[0]
    else:
        values = distilled_tokens(*parts, *teacher, ids, 0.7, divergence)[0]
    with Products() as products:
        values.sum().backward()
    assert parts[1 - needed].grad is None
    read_again = 1 if divergence is None or isinstance(divergence, SampledToken) else 2
    assert products.count == read_again + 1  # logits of the views read again, and one gradient
