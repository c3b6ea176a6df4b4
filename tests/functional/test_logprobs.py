import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rlrt.functional import logprobs as module
from rlrt.functional.divergences import AlphaDivergence, Divergence, GeneralisedJSD, SampledToken
from rlrt.functional.logprobs import distilled_tokens, predicting_positions, token_logprobs

GOLDEN = Path(__file__).parents[2] / "../shared/golden/vectors.json"
DIVERGENCES: list[Divergence] = [
    AlphaDivergence(0.5, 3),
    AlphaDivergence(0.0, None),
    GeneralisedJSD(0.25, 0.03),
    SampledToken(),
]


def test_positions_stand_one_before_each_response_token() -> None:
    # rows of 3 + 2 and 1 + 4 tokens, padded to 6: response ids at 3, 4 and at 6 + 1 ... 6 + 4
    assert predicting_positions([3, 1], [2, 4], 6).tolist() == [2, 3, 6, 7, 8, 9]


def test_an_empty_response_has_no_position() -> None:
    assert predicting_positions([3, 2], [0, 1], 4).tolist() == [5]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(AssertionError, match="a prompt of no tokens"):
        predicting_positions([0], [2], 4)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_equal_a_plain_log_softmax_in_value_and_gradient(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * 11)
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


def two_models(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Student of width 5, teacher of width 3, both over 11 ids; ids to score."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(tokens, 5), (11, 5), (tokens, 3), (11, 3)]
    student, student_head, teacher, teacher_head = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )
    ids = torch.randint(11, (tokens,), generator=generator)
    return student, student_head, teacher, teacher_head, ids


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_distilled_chunks_equal_whole_logits_in_value_and_gradient(
    divergence: Divergence, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * 11)
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
    monkeypatch.setattr(module, "CHUNK_LOGITS", 25)  # two tokens of 11 logits
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_many_chunks_give_the_gradient_of_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's gradient adds up in float32: only the products themselves are in bfloat16."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 32, generator=draw, dtype=dtype)
    head = torch.randn(200, 32, generator=draw, dtype=dtype).requires_grad_()
    ids = torch.randint(0, 200, (512,), generator=draw)
    gradients = []
    for chunk_logits in (2**25, 4 * 200):
        monkeypatch.setattr(module, "CHUNK_LOGITS", chunk_logits)
        with torch.autocast("cpu", torch.bfloat16):
            logprobs, _ = token_logprobs(hidden, head, ids, 1.0)
        gradients += torch.autograd.grad(logprobs.mean(), head)
    one, many = gradients
    assert one.dtype == dtype
    assert (one - many).norm() / one.norm() < 3e-3


def test_under_autocast_the_backward_repeats_the_forward_wherever_it_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 3 * 11)
    *models, ids = two_models(7)
    models = [part.detach().float().requires_grad_() for part in models]
    gradients = []
    for state in ({"enabled": False}, {"dtype": torch.float16}):
        with torch.autocast("cpu", torch.bfloat16):
            loss = distilled_tokens(*models, ids, 0.7, AlphaDivergence(0.5, 3))[0].sum()
        with torch.autocast("cpu", **state):
            gradients.append(torch.autograd.grad(loss, models[:2]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("divergence", [None, AlphaDivergence(0.5, 3)], ids=repr)
def test_gradients_equal_finite_differences_for_hidden_states_and_head_each_alone(
    divergence: Divergence | None, needs: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 2 * 11)
    hidden, head, *teacher, ids = two_models(5)

    def value(hidden_NH: Tensor, head_VH: Tensor) -> Tensor:
        if divergence is None:
            return token_logprobs(hidden_NH, head_VH, ids, 0.7)[0]
        return distilled_tokens(hidden_NH, head_VH, *teacher, ids, 0.7, divergence)[0]

    student = [part.requires_grad_(need) for part, need in zip((hidden, head), needs, strict=True)]
    assert torch.autograd.gradcheck(value, student)


class Made(TorchDispatchMode):
    """Keeps every tensor of a shape that an operation gives back."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **kwargs or {})
        if isinstance(out, Tensor) and tuple(out.shape) == self.shape:
            self.tensors.append(out)
        return out


def test_the_chunks_share_one_buffer_for_the_gradient_of_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 2 * 11)
    student, head, *_, ids = two_models(7)
    loss = token_logprobs(student, head, ids, 1.0)[0].sum()
    with Made((11, 5)) as made:
        (gradient,) = torch.autograd.grad(loss, head)
    assert {tensor.data_ptr() for tensor in made.tensors} == {gradient.data_ptr()}


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


def test_second_derivatives_are_refused() -> None:
    student, head, *_, ids = two_models(3)
    loss = token_logprobs(student, head, ids, 1.0)[0].square().sum()
    (gradient,) = torch.autograd.grad(loss, head, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
