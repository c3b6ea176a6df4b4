"""Neighbouring ranks that hold one engine together (tensor parallel)."""

from typing import TypeVar

import torch.distributed as dist

from rlrt import ranks

T = TypeVar("T")


class Sharers:
    """The ``size`` neighbouring ranks that share an engine, of which this one is ``place``.

    Made on all ranks at the same time; ``size`` divides their number. vLLM schedules on each of these
    ranks by itself, so all of them have to hand in the same requests in the same order.
    """

    def __init__(self, size: int) -> None:
        self.place = ranks.rank() % size
        self._size = size
        if size > 1:
            self._group, _ = dist.new_subgroups(size, backend="gloo")

    def gathered(self, part: T) -> list[T]:
        """What each of them gave, in their order, on all of them; collective among them."""
        if self._size == 1:
            return [part]
        parts: list[T | None] = [None] * self._size
        dist.all_gather_object(parts, part, group=self._group)
        return parts  # type: ignore[return-value]
