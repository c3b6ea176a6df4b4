"""Token values straight from hidden states and head: log-probs, entropies, divergences of two views.

Whole ``[N, V]`` logits never exist: ``token_logprobs`` goes tile by tile, and what has to see whole rows
of two distributions (``distilled_tokens``, ``over_vocabulary``) goes chunk by chunk.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlrt.loss.divergences import SampledToken


def tile_shape(device: str) -> tuple[int, int]:
    """Tokens and vocabulary entries whose logits exist at a time."""
    if device == "cpu":
        return 1024, 1024  # 4 MiB of float32: what follows the matrix product stays in the cache
    return 2**14, 2**12  # 256 MiB of float32: few launches, each product large


class FusedHead(torch.autograd.Function):
    """Log-prob and entropy of ``token_logprobs``; the gradient is that of the log-prob alone.

    With running maximum m, ``z = Σ exp(l - m)`` and ``e = -Σ exp(l - m) (l - m)`` over the logits l
    seen so far, the log-prob is ``l_id - m - log z`` and the entropy ``log z + e / z``. The backward
    computes each tile anew, as ``p - 1[id]`` with p from the saved log-sum-exp: four products of
    ``[N, H]`` and ``[V, H]`` in all. A token's slope stands at its hidden state, not at its logits.
    States and head have one dtype; logits and sums are float32 or better, never rounded to less.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        head_VH: Tensor,
        ids_N: Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.temperature = temperature
        sums = _Running(ids_N, raised(hidden_NH.dtype), entropy)
        nothing_N = torch.zeros_like(sums.z_N)
        for block in _blocks(head_VH):
            for rows in _rows(ids_N):
                tile = _logits(hidden_NH[rows], head_VH[block], temperature, nothing_N[rows])
                sums.take_in(rows, block.start, tile)
        log_z_N = sums.z_N.log()
        ctx.save_for_backward(hidden_NH, head_VH, ids_N, sums.most_N + log_z_N)
        entropy_N = sums.e_N.div_(sums.z_N).add_(log_z_N) if entropy else None
        if entropy_N is not None:
            ctx.mark_non_differentiable(entropy_N)
        return sums.at_id_N.sub_(sums.most_N).sub_(log_z_N), entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, head_VH, ids_N, lse_N = ctx.saved_tensors
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        slope_N1 = grad_N[:, None] / -ctx.temperature
        existing_VH = _adoptable_grad(head_VH) if needs_head else None
        grad_VH = existing_VH
        if needs_head and grad_VH is None:
            grad_VH = torch.zeros_like(head_VH)
        sum_NH = torch.zeros_like(hidden_NH, dtype=lse_N.dtype) if needs_hidden else None
        sloped_NH = (hidden_NH * slope_N1).to(hidden_NH.dtype) if needs_head else None
        for block in _blocks(head_VH):
            part_vH = head_VH[block]
            sum_vH = None if grad_VH is None else grad_VH[block].to(lse_N.dtype)
            for rows in _rows(ids_N):
                tile_nv = _logits(hidden_NH[rows], part_vH, ctx.temperature, lse_N[rows]).exp_()
                column_n, is_here_n = _columns(ids_N[rows], block.start, tile_nv)
                tile_nv.scatter_add_(1, column_n[:, None], -is_here_n[:, None].to(lse_N.dtype))
                tile_nv = tile_nv.to(hidden_NH.dtype)
                if sum_vH is not None and sloped_NH is not None:
                    add_product(sum_vH, tile_nv.T, sloped_NH[rows])
                if sum_NH is not None:
                    add_product(sum_NH[rows], tile_nv, part_vH)
            if grad_VH is not None and sum_vH is not None and sum_vH.dtype != grad_VH.dtype:
                grad_VH[block] = sum_vH
        grad_NH = None if sum_NH is None else sum_NH.mul_(slope_N1).to(hidden_NH.dtype)
        return grad_NH, grad_VH if existing_VH is None else None, None, None, None


def _adoptable_grad(head_VH: Tensor) -> Tensor | None:
    """The head's gradient so far, where a backward may add to it in place and return none of its own.

    So no second tensor of the head's size is made, which would stand beside all activations: at a
    vocabulary of 150,000 that is gigabytes. Autograd then learns nothing of this gradient, and hooks on
    the head would not run: with any of them it gets a tensor of its own.
    """
    hooked = head_VH._backward_hooks or head_VH._post_accumulate_grad_hooks
    return head_VH.grad if head_VH.is_leaf and not hooked else None


class _Running:
    """What the tiles seen so far say of each token: m, z and e of ``FusedHead``, and the id's logit."""

    def __init__(self, ids_N: Tensor, dtype: torch.dtype, entropy: bool) -> None:
        self.ids_N = ids_N
        self.entropy = entropy
        self.lowest = torch.finfo(dtype).min
        self.at_id_N = torch.zeros(len(ids_N), dtype=dtype, device=ids_N.device)
        self.most_N = torch.full_like(self.at_id_N, self.lowest)
        self.z_N, self.e_N = torch.zeros_like(self.at_id_N), torch.zeros_like(self.at_id_N)

    def take_in(self, rows: slice, first: int, logits_nv: Tensor) -> None:
        """Adds a tile, from vocabulary entry ``first`` on, to what is known of rows; it is used up."""
        column_n, is_here_n = _columns(self.ids_N[rows], first, logits_nv)
        at_id_n = logits_nv.gather(1, column_n[:, None]).squeeze(1)
        self.at_id_N[rows] = torch.where(is_here_n, at_id_n, self.at_id_N[rows])
        most_n = torch.maximum(self.most_N[rows], logits_nv.amax(1))
        moved_n = self.most_N[rows] - most_n
        self.most_N[rows] = most_n
        below_nv = logits_nv.sub_(most_n[:, None])
        parts_nv = below_nv.exp() if self.entropy else below_nv.exp_()
        if self.entropy:
            below_nv.clamp_(min=self.lowest)  # 0 log 0 is 0; a NaN comes through
            parts_of_e_n = below_nv.mul_(parts_nv).sum(1)
            so_far_n = (self.e_N[rows] - moved_n * self.z_N[rows]) * moved_n.exp()
            self.e_N[rows] = so_far_n - parts_of_e_n
        self.z_N[rows] = self.z_N[rows] * moved_n.exp() + parts_nv.sum(1)


def raised(dtype: torch.dtype) -> torch.dtype:
    """What logits and sums are kept in: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in float32 or better, also of factors in bfloat16.

    Multiplied in bfloat16 the result would be rounded to it before anybody could cast it: at a logit of
    20 that is 0.06 nats.
    """
    dtype = raised(left.dtype)
    if left.is_cuda and left.dtype != dtype:
        return torch.mm(left, right, out_dtype=dtype)
    return left.to(dtype) @ right.to(dtype)


def add_product(sum_: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds ``left @ right`` in place, in the dtype of the sum, and makes no tensor of the product."""
    if left.is_cuda and left.dtype != sum_.dtype:
        torch.addmm(sum_, left, right, out_dtype=sum_.dtype, out=sum_)
    else:
        sum_.addmm_(left.to(sum_.dtype), right.to(sum_.dtype))


def _blocks(head_VH: Tensor) -> Iterator[slice]:
    """Slices of the vocabulary."""
    _, size = tile_shape(head_VH.device.type)
    return (slice(start, start + size) for start in range(0, len(head_VH), size))


def _rows(ids_N: Tensor) -> Iterator[slice]:
    size, _ = tile_shape(ids_N.device.type)
    return (slice(start, start + size) for start in range(0, len(ids_N), size))


def _logits(hidden_nH: Tensor, head_vH: Tensor, temperature: float, less_n: Tensor) -> Tensor:
    """Logits at the temperature, less a number per token, in that number's dtype."""
    less_n1, dtype, alpha = less_n[:, None], less_n.dtype, 1 / temperature
    if hidden_nH.is_cuda and hidden_nH.dtype != dtype:
        return torch.addmm(less_n1, hidden_nH, head_vH.T, out_dtype=dtype, beta=-1, alpha=alpha)
    return torch.addmm(less_n1, hidden_nH.to(dtype), head_vH.T.to(dtype), beta=-1, alpha=alpha)


def _columns(ids_n: Tensor, first: int, tile_nv: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the tile each id stands, and whether it stands there at all (else any column)."""
    columns_n = ids_n - first
    last = tile_nv.shape[1] - 1
    return columns_n.clamp(0, last), (columns_n >= 0) & (columns_n <= last)


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
    chunks = []
    with torch.no_grad():
        for ids_n, *hidden_n in _chunks(len(heads[0]), ids_N, *hidden):
            first_nV, second_nV = _chunk_logits(hidden_n, heads, temperature)
            chunks.append(read(first_nV, second_nV, ids_n))
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


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
            logits = _chunk_logits(hidden_n, heads, temperature)
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
        existing_VH = _adoptable_grad(head_VH) if needs_head else None
        sum_VH = existing_VH
        if needs_head and (sum_VH is None or sum_VH.dtype != raised(sum_VH.dtype)):
            existing_VH, sum_VH = None, torch.zeros_like(head_VH, dtype=raised(head_VH.dtype))

        def add_to_sum(grad_n: Tensor, ids_n: Tensor, *hidden_n: Tensor) -> Tensor | None:
            """Returns the gradient of the chunk's hidden states."""
            first_nV, *others = _chunk_logits(hidden_n, heads, ctx.temperature)
            with torch.enable_grad():
                scores_n = ctx.score(first_nV.requires_grad_(), *others, ids_n)
            del others  # of the logits' size, and needed no more
            (slopes_nV,) = torch.autograd.grad(scores_n, first_nV, grad_n / ctx.temperature)
            slopes_nV = slopes_nV.to(head_VH.dtype)
            if sum_VH is not None:
                add_product(sum_VH, slopes_nV.T, hidden_n[0])
            return product(slopes_nV, head_VH) if needs_hidden else None

        chunks = _chunks(len(head_VH), grad_N, ids_N, *hidden_N)
        hidden_grads = [grad for chunk in chunks if (grad := add_to_sum(*chunk)) is not None]
        grad_NH = torch.cat(hidden_grads).to(views[0].dtype) if hidden_grads else None
        grad_VH = None if sum_VH is None or existing_VH is not None else sum_VH.to(head_VH.dtype)
        return None, None, None, None, grad_NH, grad_VH, *(None for _ in views[2:])


def _chunks(vocabulary: int, *rows_N: Tensor) -> Iterator[tuple[Tensor, ...]]:
    tokens = chunk_tokens(rows_N[0].device.type, vocabulary)
    return zip(*(rows.split(tokens) for rows in rows_N), strict=True)


def _chunk_logits(
    hidden: Sequence[Tensor], heads: Sequence[Tensor], temperature: float
) -> list[Tensor]:
    pairs = zip(hidden, heads, strict=True)
    return [product(states_nH, head_VH.T).div_(temperature) for states_nH, head_VH in pairs]
