import json
from typing import Any

import pytest
import torch
from tests.paths import GOLDEN
from tests.unit.model.heads import DIVERGENCES, Made, Products, naive, split_by, two_models
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlrt.loss.divergences import AlphaDivergence, Divergence, SampledToken
from rlrt.model.fused_head import (
    add_product,
    distilled_tokens,
    over_vocabulary,
    product,
    token_logprobs,
)


@pytest.mark.parametrize("entries", [1, 4, 11, 100])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_equal_a_plain_log_softmax_in_value_and_gradient(
    chunk: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(monkeypatch, chunk, entries)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(11, (7,), generator=generator)
    weight = torch.randn(7, generator=generator, dtype=torch.float64)

    found, entropy = token_logprobs(hidden, head, ids, temperature=0.7)
    gradients = torch.autograd.grad((found * weight).sum(), (hidden, head))
    plain = torch.log_softmax(hidden @ head.T / 0.7, -1)
    expected = plain[torch.arange(7), ids]
    expected_gradients = torch.autograd.grad((expected * weight).sum(), (hidden, head))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)
    slow = [-sum(float(p.exp() * p) for p in row) for row in plain.detach()]
    torch.testing.assert_close(entropy.tolist(), slow, rtol=0, atol=1e-12)
    assert not entropy.requires_grad


def test_golden_entropy() -> None:
    if not GOLDEN.exists():
        pytest.skip("needs the reference data in ../shared")
    vectors = json.loads(GOLDEN.read_text())
    logits = torch.tensor(vectors["teacher_logits"], dtype=torch.float64)
    identity = torch.eye(5, dtype=torch.float64)
    _, entropy = token_logprobs(logits, identity, torch.tensor([0, 1]), temperature=1.0)
    assert entropy.tolist() == pytest.approx(vectors["teacher_entropy_full"], rel=0, abs=1e-12)


@pytest.mark.parametrize(("last", "entropy"), [(-torch.inf, 0.6931472), (torch.nan, torch.nan)])
def test_entropy_leaves_out_an_excluded_id_but_hides_no_broken_logit(
    last: float, entropy: float
) -> None:
    head = torch.tensor([[0.0], [0.0], [last]])  # of width 1: with a hidden state of 1, the logits
    _, found = token_logprobs(torch.ones(1, 1), head, torch.tensor([0]), temperature=1.0)
    assert found.tolist() == pytest.approx([entropy], nan_ok=True)


def test_the_chunks_share_one_buffer_for_the_gradient_of_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split_by(monkeypatch, 2)
    student, head, *_, ids = two_models(7)
    loss = token_logprobs(student, head, ids, 1.0)[0].sum()
    with Made((11, 5)) as made:
        (gradient,) = torch.autograd.grad(loss, head)
    assert {tensor.data_ptr() for tensor in made.tensors} == {gradient.data_ptr()}


def test_second_derivatives_are_refused() -> None:
    student, head, *_, ids = two_models(3)
    loss = token_logprobs(student, head, ids, 1.0)[0].square().sum()
    (gradient,) = torch.autograd.grad(loss, head, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
def test_ids_at_the_borders_of_blocks_and_any_number_of_tokens(
    tokens: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(monkeypatch, 2, 4)
    draw = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 5, generator=draw, dtype=dtype, requires_grad=True)
    head = torch.randn(11, 5, generator=draw, dtype=dtype, requires_grad=True)
    ids = torch.tensor([0, 3, 4, 7, 8, 10, 10, 0, 5])[:tokens]
    found = token_logprobs(hidden, head, ids, 1.3)[0]
    expected = naive(hidden, head, ids, 1.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    gradients = [torch.autograd.grad(v.square().sum(), (hidden, head)) for v in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [1.0, -1.0])
def test_extreme_logits_give_exact_values_and_finite_gradients(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(monkeypatch, 2, 2)
    head = (size * torch.tensor([[1e4], [-1e4], [1e4], [0.0], [-1e4]])).requires_grad_()
    hidden = torch.ones(5, 1).requires_grad_()
    ids = torch.arange(5)
    found, entropy = token_logprobs(hidden, head, ids, 1.0)
    expected = naive(hidden.double(), head.double(), ids, 1.0).float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert entropy.tolist() == pytest.approx([0.6931472] * 5)
    weight = torch.linspace(-1, 2, 5)
    gradients = [torch.autograd.grad((v * weight).sum(), (hidden, head)) for v in (found, expected)]
    # float32 keeps three decimals of a log-sum-exp of 1e4, so as many of each probability
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=0, atol=5e-3)
    assert all(gradient.isfinite().all() for gradient in gradients[0])


def test_an_id_excluded_over_a_whole_block_has_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    split_by(monkeypatch, 1, 2)
    head = torch.tensor([[-torch.inf], [-torch.inf], [0.0], [1.0], [-torch.inf], [-torch.inf]])
    hidden = torch.ones(1, 1).requires_grad_()
    found, entropy = token_logprobs(hidden, head, torch.tensor([2]), 1.0)
    plain = torch.log_softmax(torch.tensor([0.0, 1.0]), 0)
    torch.testing.assert_close(found, plain[:1])
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum()[None])


def test_a_head_of_low_precision_gets_its_gradient_from_a_sum_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under FSDP2's mixed precision: states and head are bfloat16."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 32, generator=draw).bfloat16().requires_grad_()
    head = torch.randn(200, 32, generator=draw).bfloat16().requires_grad_()
    ids = torch.randint(0, 200, (512,), generator=draw)
    exact = naive(hidden.double(), head.double(), ids, 1.0)
    expected = torch.autograd.grad(exact.mean(), (hidden, head))
    for tile in ((512, 200), (4, 30)):
        split_by(monkeypatch, *tile)
        found, _ = token_logprobs(hidden, head, ids, 1.0)
        assert found.dtype == torch.float32
        gradients = torch.autograd.grad(found.mean(), (hidden, head))
        for gradient, plain in zip(gradients, expected, strict=True):
            assert gradient.dtype == torch.bfloat16
            assert (gradient.double() - plain.double()).norm() / plain.double().norm() < 8e-3


def test_a_head_whose_storage_is_freed_between_the_passes_is_read_anew() -> None:
    """As FSDP does with the parameters of a module; a view or copy of the head would be stale."""
    hidden, head, *_, ids = two_models(4)
    found, _ = token_logprobs(hidden, head, ids, 1.0)
    plain = torch.autograd.grad(naive(hidden, head, ids, 1.0).sum(), (hidden, head))
    kept, size = head.detach().clone(), head.untyped_storage().nbytes()
    head.untyped_storage().resize_(0)
    head.untyped_storage().resize_(size)
    with torch.autograd._unsafe_preserve_version_counter(head), torch.no_grad():
        head.copy_(kept)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), (hidden, head)), plain)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_gradient_that_is_there_is_added_to_in_place_unless_hooks_wait_for_the_new_one(
    hooked: bool,
) -> None:
    hidden, head, *_, ids = two_models(4)
    plain, divergence = naive(hidden, head, ids, 1.0).sum(), AlphaDivergence(0.5, 3)
    (expected,) = torch.autograd.grad(plain, head)
    for both in (False, True):
        head.grad = before = torch.ones_like(head)
        seen: list[torch.Tensor] = []
        if hooked:
            handle = head.register_post_accumulate_grad_hook(seen.append)
        loss = token_logprobs(hidden, head, ids, 1.0)[0].sum()
        if both:
            views = hidden, head, hidden, head
            loss = loss + 0 * distilled_tokens(*views, ids, 1.0, divergence)[0].sum()
        loss.backward()
        torch.testing.assert_close(head.grad, 1 + expected)
        assert head.grad is before
        assert bool(seen) == hooked
        if hooked:
            handle.remove()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_products_of_low_precision_are_not_rounded_to_it(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same bfloat16 numbers: float32's distance from float64, at logits of up to 40 where
    bfloat16 knows steps of 0.25 alone.
    """
    draw = torch.Generator().manual_seed(0)
    hidden = 3 * torch.randn(64, 32, generator=draw).bfloat16()
    head = torch.randn(200, 32, generator=draw).bfloat16()
    ids = torch.randint(0, 200, (64,), generator=draw)
    exact = torch.log_softmax(hidden.double() @ head.double().T / temperature, -1)
    assert (hidden.double() @ head.double().T).abs().max() > 40
    at_id, entropy = exact[torch.arange(64), ids], -(exact.exp() * exact).sum(-1)
    split_by(monkeypatch, 10, 30)

    found, found_entropy = token_logprobs(hidden, head, ids, temperature)
    torch.testing.assert_close(found.double(), at_id, rtol=1e-6, atol=3e-5)
    torch.testing.assert_close(found_entropy.double(), entropy, rtol=1e-6, atol=3e-5)

    def read(first: torch.Tensor, second: torch.Tensor, ids_n: torch.Tensor) -> dict[str, Any]:
        return {"logits": first}

    view = (hidden, head)
    logits = over_vocabulary(view, view, ids, temperature, read)["logits"]
    wanted = hidden.double() @ head.double().T / temperature
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-6, atol=3e-5)


def test_sums_of_products_of_low_precision_are_not_rounded_to_it() -> None:
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(30, 500, generator=draw).bfloat16()
    right = torch.randn(500, 20, generator=draw).bfloat16()
    before = torch.randn(30, 20, generator=draw)
    exact = left.double() @ right.double()
    sum_ = before.clone()
    add_product(sum_, left, right)
    torch.testing.assert_close(sum_.double(), before.double() + exact, rtol=1e-6, atol=3e-5)
    torch.testing.assert_close(product(left, right).double(), exact, rtol=1e-6, atol=3e-5)


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
