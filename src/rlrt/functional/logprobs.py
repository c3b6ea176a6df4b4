"""Log-probs of response tokens. The shift between a token and its prediction happens here alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Score = Callable[..., Tensor]

CHUNK_LOGITS = 2**25  # logits of one view that exist at a time: 128 MiB of float32


def predicting_positions(
    prompt_lengths: Sequence[int], response_lengths: Sequence[int], padded_length: int
) -> Tensor:
    """Flat indices into hidden states ``[B * L]`` whose output predicts each response token.

    Response token t of a sequence stands at position ``prompt + t`` and is predicted one earlier.
    The order is row by row, t ascending: the order of ``x_BT[mask_BT]``. A prompt must not be empty.
    """
    assert all(length > 0 for length in prompt_lengths), "a prompt of no tokens predicts nothing"
    return torch.cat(
        [
            torch.arange(prompt - 1, prompt - 1 + response) + row * padded_length
            for row, (prompt, response) in enumerate(
                zip(prompt_lengths, response_lengths, strict=True)
            )
        ]
        or [torch.empty(0, dtype=torch.long)]
    )


def token_logprobs(
    hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-prob of each id and entropy of its distribution, in nats, at ``temperature`` > 0.

    Both are ``[N]`` and at least float32. Computed in chunks over tokens that are recomputed in the
    backward pass, so that ``[N, V]`` logits never exist whole. The entropy carries no gradient.
    """
    return _InChunks.apply(_logprobs_at, _entropy, temperature, ids_N, hidden_NH, head_VH)


def distilled_tokens(
    student_hidden_NH: Tensor,
    student_head_VH: Tensor,
    teacher_hidden_NG: Tensor,
    teacher_head_VG: Tensor,
    ids_N: Tensor,
    temperature: float,
    divergence: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Divergence of the two views at each id and the student's log-prob of the id, in nats.

    Both are ``[N]``, at least float32, and computed in chunks like ``token_logprobs``. ``divergence``
    gets ``(student_logits_nV, teacher_logits_nV, ids_n)`` at ``temperature`` > 0; its gradient goes to
    the student's hidden states and head alone. The log-prob carries none. The teacher may be another
    model, of any width G, with the same vocabulary.
    """
    assert len(student_head_VH) == len(teacher_head_VG), (
        f"a student's vocabulary of {len(student_head_VH)}, a teacher's of {len(teacher_head_VG)}"
    )
    views = (
        student_hidden_NH,
        student_head_VH,
        teacher_hidden_NG.detach(),
        teacher_head_VG.detach(),
    )
    return _InChunks.apply(divergence, _logprobs_at, temperature, ids_N, *views)


def _logprobs_at(logits_nV: Tensor, ids_n: Tensor) -> Tensor:
    return torch.log_softmax(logits_nV, dim=-1).gather(-1, ids_n[:, None]).squeeze(-1)


def _entropy(logits_nV: Tensor, _: Tensor) -> Tensor:
    probs_nV = torch.softmax(logits_nV, dim=-1)
    return torch.special.entr(probs_nV, out=probs_nV).sum(-1)


class _InChunks(torch.autograd.Function):
    """``score(*logits_nV, ids_n)`` of all views and ``beside(logits_nV, ids_n)`` of the first: ``[N]``.

    ``views`` are hidden states and head of one view after the other; only the score has a gradient, to
    the first view alone. Chunks of tokens hold ``CHUNK_LOGITS`` logits of a view at a time, and the
    backward computes them anew. By hand, since autograd sums the chunks' ``[V, H]`` gradients of the
    head out of place. Here they add up in one buffer, of float32 or better: autocast's dtype is
    that of the matrix products alone, in the backward too.
    """

    @staticmethod
    def forward(
        ctx: Any, score: Score, beside: Score, temperature: float, ids_N: Tensor, *views: Tensor
    ) -> tuple[Tensor, Tensor]:
        device = ids_N.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        ctx.score, ctx.temperature, ctx.low = score, temperature, low
        ctx.save_for_backward(ids_N, *views)
        hidden_N, heads = _lowered(views, low)

        def both(ids_n: Tensor, *hidden_n: Tensor) -> tuple[Tensor, Tensor]:
            first_nV, *others = _logits(hidden_n, heads, temperature)
            return score(first_nV, *others, ids_n), beside(first_nV, ids_n)

        with torch.autocast(device, enabled=False):
            parts = [both(*chunk) for chunk in _chunks(len(heads[0]), ids_N, *hidden_N)]
        scores_N, beside_N = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.mark_non_differentiable(beside_N)
        return scores_N, beside_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        ids_N, *views = ctx.saved_tensors
        hidden_N, heads = _lowered(views, ctx.low)
        needs_head = ctx.needs_input_grad[5]
        head_VH = views[1]
        sum_VH = torch.zeros_like(head_VH, dtype=_raised(head_VH)) if needs_head else None

        def add_to_sum(grad_n: Tensor, ids_n: Tensor, *hidden_n: Tensor) -> Tensor:
            """Returns the gradient of the chunk's hidden states."""
            first_nV, *others = _logits(hidden_n, heads, ctx.temperature)
            with torch.enable_grad():
                scores_n = ctx.score(first_nV.requires_grad_(), *others, ids_n)
            del others  # of the logits' size, and needed no more
            (slopes_nV,) = torch.autograd.grad(scores_n, first_nV, grad_n / ctx.temperature)
            slopes_nV = slopes_nV.to(heads[0].dtype)
            if sum_VH is not None and sum_VH.dtype == slopes_nV.dtype:
                sum_VH.addmm_(slopes_nV.T, hidden_n[0])  # makes no tensor of the product
            elif sum_VH is not None:
                sum_VH.add_(slopes_nV.T @ hidden_n[0])
            return slopes_nV @ heads[0]

        with torch.autocast(ids_N.device.type, enabled=False):
            chunks = _chunks(len(head_VH), grad_N, ids_N, *hidden_N)
            grad_NH = torch.cat([add_to_sum(*chunk) for chunk in chunks]).to(views[0].dtype)
        grad_VH = None if sum_VH is None else sum_VH.to(head_VH.dtype)
        return None, None, None, None, grad_NH, grad_VH, *(None for _ in views[2:])


def _chunks(vocabulary: int, *rows_N: Tensor) -> Iterator[tuple[Tensor, ...]]:
    tokens = max(1, CHUNK_LOGITS // vocabulary)
    return zip(*(rows.split(tokens) for rows in rows_N), strict=True)


def _lowered(views: Sequence[Tensor], low: torch.dtype | None) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and heads of the views, in the dtype of their product."""
    parts = [part if low is None else part.to(low) for part in views]
    return parts[::2], parts[1::2]


def _logits(hidden: Sequence[Tensor], heads: Sequence[Tensor], temperature: float) -> list[Tensor]:
    products = map(torch.nn.functional.linear, hidden, heads)
    return [logits_nV.to(_raised(logits_nV)).div_(temperature) for logits_nV in products]


def _raised(part: Tensor) -> torch.dtype:
    return torch.promote_types(part.dtype, torch.float32)
