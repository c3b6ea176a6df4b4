"""What the processes of a run tell each other. In a run of one process every answer is its own.

A rank is one process with one device. Every function here but ``is_initialized``,
``get_rank``, ``get_world_size`` and ``groups_of_rank`` is collective: all ranks call it, in the same order.
"""

import pickle
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def is_initialized() -> bool:
    """Whether the run has a process group; it may hold a single process."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """This process among those of the run, from 0."""
    return dist.get_rank() if is_initialized() else 0


def get_world_size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if is_initialized() else 1


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all ranks of a tensor that has the same shape on each, on the CPU."""
    values = values.detach().cpu().clone()
    if get_world_size() > 1:
        dist.all_reduce(values)
    return values


def largest(value: int) -> int:
    """The largest of the ranks' numbers."""
    return int(all_reduce_max(torch.tensor(value)))


def all_reduce_max(values: Tensor) -> Tensor:
    """Element by element the largest of all ranks' values, which have the same shape, on the CPU."""
    values = values.detach().cpu().clone()
    if get_world_size() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def barrier() -> None:
    """Until every rank has come here."""
    largest(0)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor that the ranks may share among them, with all its parts."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def all_gather_object(value: T) -> list[T]:
    """What every rank gave, in the order of the ranks, on every rank."""
    if get_world_size() == 1:
        return [value]
    values: list[T | None] = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def all_to_all_object(values: Sequence[T]) -> list[T]:
    """What every rank has for this one, in the order of the ranks; ``values[r]`` goes to rank r."""
    if get_world_size() == 1:
        return list(values)
    pickled = [
        np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8) for value in values
    ]
    sizes = torch.tensor([len(content) for content in pickled])
    received_sizes = torch.empty_like(sizes)
    dist.all_to_all_single(received_sizes, sizes)
    received = torch.empty(int(received_sizes.sum()), dtype=torch.uint8)
    dist.all_to_all_single(
        received,
        torch.from_numpy(np.concatenate(pickled)),
        received_sizes.tolist(),
        sizes.tolist(),
    )
    return [pickle.loads(content.numpy()) for content in received.split(received_sizes.tolist())]


def groups_of_rank(groups: int, groups_per_update: int) -> list[int]:
    """The groups of a rollout step that this rank samples: an equal part of every update, in order.

    So an update holds the same groups however many ranks there are.
    """
    share, mine = groups_per_update // get_world_size(), get_rank()
    assert share * get_world_size() == groups_per_update, (groups_per_update, get_world_size())
    return [group for group in range(groups) if group % groups_per_update // share == mine]
