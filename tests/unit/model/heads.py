"""Small heads for tests, how their logits are cut up, and what was made of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlrt.loss.divergences import AlphaDivergence, Divergence, GeneralizedJSD, SampledToken
from rlrt.model import fused_head

DIVERGENCES: list[Divergence] = [
    AlphaDivergence(0.5, 3),
    AlphaDivergence(0.0, None),
    GeneralizedJSD(0.25, 0.03),
    SampledToken(),
]


def split_by(monkeypatch: pytest.MonkeyPatch, tokens: int, entries: int = 4) -> None:
    """Logits come in chunks of so many tokens, in the fused head also of vocabulary entries."""
    monkeypatch.setattr(fused_head, "tile_shape", lambda device: (tokens, entries))
    monkeypatch.setattr(fused_head, "chunk_tokens", lambda device, vocabulary: tokens)


def naive(hidden: Tensor, head: Tensor, ids: Tensor, temperature: float) -> Tensor:
    rows = torch.log_softmax(hidden @ head.T / temperature, -1)
    return rows[torch.arange(len(ids)), ids]


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


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        aten = torch.ops.aten
        self.count += func in (aten.mm.default, aten.addmm.default, aten.addmm_.default)
        return func(*args, **kwargs or {})
