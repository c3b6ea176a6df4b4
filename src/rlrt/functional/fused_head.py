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
        ctx.temperature, ctx.dtype = temperature, product_dtype(hidden_NH)
        sums = _Running(ids_N, raised(ctx.dtype), entropy)
        nothing_N = torch.zeros_like(sums.z_N)
        with torch.autocast(ids_N.device.type, enabled=False):
            states_NH = hidden_NH.to(ctx.dtype)
            for block, part_vH in _blocks(head_VH, ctx.dtype):
                for rows in _rows(ids_N):
                    tile = _logits(states_NH[rows], part_vH, temperature, nothing_N[rows])
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
        with torch.autocast(ids_N.device.type, enabled=False):
            states_NH = hidden_NH.to(ctx.dtype)
            sloped_NH = (hidden_NH * slope_N1).to(ctx.dtype) if needs_head else None
            for block, part_vH in _blocks(head_VH, ctx.dtype):
                sum_vH = None if grad_VH is None else grad_VH[block].to(lse_N.dtype)
                for rows in _rows(ids_N):
                    tile_nv = _logits(states_NH[rows], part_vH, ctx.temperature, lse_N[rows]).exp_()
                    column_n, is_here_n = _columns(ids_N[rows], block.start, tile_nv)
                    tile_nv.scatter_add_(1, column_n[:, None], -is_here_n[:, None].to(lse_N.dtype))
                    tile_nv = tile_nv.to(ctx.dtype)
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


def product_dtype(hidden: Tensor) -> torch.dtype:
    """What a product with the head is computed in: autocast's dtype, or the states' own."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def raised(dtype: torch.dtype) -> torch.dtype:
    """What logits and sums are kept in: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def add_product(sum_: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds ``left @ right`` in place, in the dtype of the sum."""
    if sum_.dtype == left.dtype:
        sum_.addmm_(left, right)  # makes no tensor of the product
    else:
        sum_.add_(left @ right)


def _blocks(head_VH: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the vocabulary and the head there, in the dtype of the product."""
    _, size = tile_shape(head_VH.device.type)
    for start in range(0, len(head_VH), size):
        block = slice(start, start + size)
        yield block, head_VH[block].to(dtype)


def _rows(ids_N: Tensor) -> Iterator[slice]:
    size, _ = tile_shape(ids_N.device.type)
    return (slice(start, start + size) for start in range(0, len(ids_N), size))


def _logits(hidden_nH: Tensor, head_vH: Tensor, temperature: float, less_n: Tensor) -> Tensor:
    """Logits at the temperature, less a number per token, in that number's dtype."""
    if hidden_nH.dtype == less_n.dtype:
        return torch.addmm(less_n[:, None], hidden_nH, head_vH.T, beta=-1, alpha=1 / temperature)
    product_nv = (hidden_nH @ head_vH.T).to(less_n.dtype)
    return product_nv.div_(temperature).sub_(less_n[:, None])


def _columns(ids_n: Tensor, first: int, tile_nv: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the tile each id stands, and whether it stands there at all (else any column)."""
    columns_n = ids_n - first
    last = tile_nv.shape[1] - 1
    return columns_n.clamp(0, last), (columns_n >= 0) & (columns_n <= last)
