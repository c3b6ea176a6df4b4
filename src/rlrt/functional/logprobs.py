"""Log-probs of response tokens, and divergences of two views at them, from hidden states and heads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlrt.functional.divergences import SampledToken
from rlrt.functional.fused_head import FusedHead, add_product, product, raised

Score = Callable[..., Tensor]
Read = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]


def chunk_tokens(device: str, vocabulary: int) -> int:
    """Tokens whose whole rows of logits exist at a time, for each view."""
    if device == "cpu":
        return max(1, min(2**10, 2**25 // vocabulary))  # small rows stay in the cache; 128 MiB
    return max(1, 2**27 // vocabulary)  # 512 MiB of float32: few launches


def token_logprobs(
    hidden_NH: Tensor,
    head_VH: Tensor,
    ids_N: Tensor,
    temperature: float,
    entropy: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of each id and, unless not asked for, entropy of its distribution, in nats.

    At ``temperature`` > 0. Both are ``[N]`` and at least float32. The logits exist in tiles of tokens
    and vocabulary, and the backward pass computes them anew. The entropy carries no gradient.
    """
    assert len(hidden_NH) == len(ids_N), (hidden_NH.shape, ids_N.shape)
    logprobs_N, entropy_N = FusedHead.apply(hidden_NH, head_VH, ids_N, temperature, entropy)
    return logprobs_N, entropy_N


def distilled_tokens(
    student_hidden_NH: Tensor,
    student_head_VH: Tensor,
    teacher_hidden_NG: Tensor,
    teacher_head_VG: Tensor,
    ids_N: Tensor,
    temperature: float,
    divergence: Score,
    logprobs: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Divergence of the two views at each id and, unless not asked for, the student's log-prob of it.

    In nats, ``[N]``, at least float32. ``divergence`` gets ``(student_logits_nV, teacher_logits_nV,
    ids_n)`` at ``temperature`` > 0, for a chunk of tokens; the backward pass computes them anew. Its
    gradient goes to the student's hidden states and head alone. The log-prob carries none. The
    teacher may be another model, of any width G, with the same vocabulary.
    """
    assert len(student_head_VH) == len(teacher_head_VG), (
        f"a student's vocabulary of {len(student_head_VH)}, a teacher's of {len(teacher_head_VG)}"
    )
    student = (student_hidden_NH, student_head_VH)
    teacher = (teacher_hidden_NG.detach(), teacher_head_VG.detach())
    if isinstance(divergence, SampledToken):  # reads one id: no row of logits is needed
        student_N, _ = token_logprobs(*student, ids_N, temperature, entropy=False)
        teacher_N, _ = token_logprobs(*teacher, ids_N, temperature, entropy=False)
        beside_N = student_N.detach() if logprobs else None
        return divergence.of_logprobs(student_N, teacher_N), beside_N
    beside = _logprobs_at if logprobs else None
    divergence_N, logprobs_N = _InChunks.apply(
        divergence, beside, temperature, ids_N, *student, *teacher
    )
    return divergence_N, logprobs_N


def over_vocabulary(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    ids_N: Tensor,
    temperature: float,
    read: Read,
) -> dict[str, Tensor]:
    """What ``read`` makes of two distributions at every token; views are (hidden ``[N, H]``, head).

    ``read(first_nV, second_nV, ids_n)`` gets logits at ``temperature`` > 0, at least float32, for a chunk
    of tokens, and returns tensors by name whose first dimension is n; here it is N. Logits exist for
    a chunk alone, so memory does not grow with N × V. No gradient.
    """
    hidden, heads = (first[0], second[0]), (first[1], second[1])
    parts = []
    with torch.no_grad():
        for ids_n, *hidden_n in _chunks(len(heads[0]), ids_N, *hidden):
            first_nV, second_nV = _logits(hidden_n, heads, temperature)
            parts.append(read(first_nV, second_nV, ids_n))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _logprobs_at(logits_nV: Tensor, ids_n: Tensor) -> Tensor:
    return torch.log_softmax(logits_nV, dim=-1).gather(-1, ids_n[:, None]).squeeze(-1)


class _InChunks(torch.autograd.Function):
    """``score(*logits_nV, ids_n)`` of all views and ``beside(logits_nV, ids_n)`` of the first: ``[N]``.

    ``views`` are hidden states and head of one view after the other; only the score has a gradient, to
    the first view alone. Chunks of tokens hold whole rows of logits, and the backward computes them
    anew. By hand, since autograd sums the chunks' ``[V, H]`` gradients of the head out of place. Here
    they add up in one buffer, of float32 or better.
    """

    @staticmethod
    def forward(
        ctx: Any,
        score: Score,
        beside: Score | None,
        temperature: float,
        ids_N: Tensor,
        *views: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.score, ctx.temperature = score, temperature
        ctx.save_for_backward(ids_N, *views)
        hidden_N, heads = views[::2], views[1::2]
        scores, besides = [], []
        for ids_n, *hidden_n in _chunks(len(heads[0]), ids_N, *hidden_N):
            logits = _logits(hidden_n, heads, temperature)
            if beside is not None:
                besides.append(beside(logits[0], ids_n))
            scores.append(score(*logits, ids_n))
            del logits  # before the next chunk's are made
        scores_N = torch.cat(scores)
        beside_N = torch.cat(besides) if besides else None
        if beside_N is not None:
            ctx.mark_non_differentiable(beside_N)
        return scores_N, beside_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        ids_N, *views = ctx.saved_tensors
        needs_hidden, needs_head = ctx.needs_input_grad[4:6]
        hidden_N, heads = views[::2], views[1::2]
        head_VH = views[1]
        found_VH = head_VH.grad if needs_head and head_VH.is_leaf else None  # as in FusedHead
        sum_VH = found_VH
        if needs_head and (sum_VH is None or sum_VH.dtype != raised(sum_VH.dtype)):
            found_VH, sum_VH = None, torch.zeros_like(head_VH, dtype=raised(head_VH.dtype))

        def add_to_sum(grad_n: Tensor, ids_n: Tensor, *hidden_n: Tensor) -> Tensor | None:
            """Returns the gradient of the chunk's hidden states."""
            first_nV, *others = _logits(hidden_n, heads, ctx.temperature)
            with torch.enable_grad():
                scores_n = ctx.score(first_nV.requires_grad_(), *others, ids_n)
            del others  # of the logits' size, and needed no more
            (slopes_nV,) = torch.autograd.grad(scores_n, first_nV, grad_n / ctx.temperature)
            slopes_nV = slopes_nV.to(head_VH.dtype)
            if sum_VH is not None:
                add_product(sum_VH, slopes_nV.T, hidden_n[0])
            return product(slopes_nV, head_VH) if needs_hidden else None

        chunks = _chunks(len(head_VH), grad_N, ids_N, *hidden_N)
        parts = [add_to_sum(*chunk) for chunk in chunks]
        found = [part_nH for part_nH in parts if part_nH is not None]
        grad_NH = torch.cat(found).to(views[0].dtype) if found else None
        grad_VH = None if sum_VH is None or found_VH is not None else sum_VH.to(head_VH.dtype)
        return None, None, None, None, grad_NH, grad_VH, *(None for _ in views[2:])


def _chunks(vocabulary: int, *rows_N: Tensor) -> Iterator[tuple[Tensor, ...]]:
    tokens = chunk_tokens(rows_N[0].device.type, vocabulary)
    return zip(*(rows.split(tokens) for rows in rows_N), strict=True)


def _logits(hidden: Sequence[Tensor], heads: Sequence[Tensor], temperature: float) -> list[Tensor]:
    pairs = zip(hidden, heads, strict=True)
    return [product(states_nH, head_VH.T).div_(temperature) for states_nH, head_VH in pairs]
