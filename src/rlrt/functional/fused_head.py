"""Log-probs straight from hidden states and head, tile by tile: ``[N, V]`` logits never exist."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
        # A gradient that is there already takes up this one's tiles: no other of the head's size is
        # made, which would stand beside all activations.
        found_VH = head_VH.grad if needs_head and head_VH.is_leaf else None
        grad_VH = found_VH
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
        return grad_NH, grad_VH if found_VH is None else None, None, None, None


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
        found_n = logits_nv.gather(1, column_n[:, None]).squeeze(1)
        self.at_id_N[rows] = torch.where(is_here_n, found_n, self.at_id_N[rows])
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
