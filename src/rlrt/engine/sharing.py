"""Engines inside the processes of a trainer: neighbouring ranks may hold one engine together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from rlrt import distributed

T = TypeVar("T")


class Sharers:
    """The ``size`` neighbouring ranks that share an engine, of which this one is ``place``.

    Made on all ranks at the same time; ``size`` divides their number. vLLM schedules on each of these
    ranks by itself, so all of them have to hand in the same requests in the same order.
    """

    def __init__(self, size: int) -> None:
        self.place = distributed.get_rank() % size
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


@contextmanager
def process_group_kept() -> Iterator[None]:
    """Keeps vLLM from ending the default process group, the trainer's, together with its engine."""
    destroy = dist.destroy_process_group

    def destroy_own(group: dist.ProcessGroup | None = None) -> None:
        if group is not None:
            destroy(group)

    dist.destroy_process_group = destroy_own
    try:
        yield
    finally:
        dist.destroy_process_group = destroy


def name_this_rank(device: torch.device) -> None:
    """Set what torchrun sets and vLLM reads; other launchers leave some of it out."""
    local = device.index if device.index is not None else distributed.get_rank()
    os.environ |= {
        "RANK": str(distributed.get_rank()),
        "WORLD_SIZE": str(distributed.get_world_size()),
    }
    os.environ.setdefault("LOCAL_RANK", str(local))
    # The process group stands already: nobody connects to these any more.
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
