"""Optimiser state that waits on the host while the engine needs the device's memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


class HostOptimizerState:
    """Moves what an optimiser knows about its parameters to the host and back, to the bit.

    The tensors stay the same objects: their memory on the device is given up and taken again. Copies
    on the host keep their (page-locked) memory from one time to the next.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._copies: dict[
            Tensor, Tensor
        ] = {}  # the bytes of each storage, by a tensor that has it

    def offload(self) -> None:
        """Free the device's memory. What has been moved already stays; there may be no state yet."""
        moved = [tensor for tensor in _owners(self._optimizer) if not is_freed(tensor)]
        earlier = {tensor: copy for tensor, copy in self._copies.items() if is_freed(tensor)}
        self._copies = earlier | {tensor: self._copy(tensor) for tensor in moved}
        _wait(moved)
        for tensor in moved:
            tensor.untyped_storage().resize_(0)
        if any(tensor.is_cuda for tensor in moved):
            torch.cuda.empty_cache()  # the engine's memory comes from outside PyTorch's cache

    def restore(self) -> None:
        """Bring back all that was freed."""
        for tensor, copy in self._copies.items():
            if is_freed(tensor):
                tensor.untyped_storage().resize_(copy.numel())
                _bytes(tensor).copy_(copy, non_blocking=True)
        _wait(self._copies)

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """The state is on the host within the block and back after it, also after an error."""
        self.offload()
        try:
            yield
        finally:
            self.restore()

    def _copy(self, tensor: Tensor) -> Tensor:
        """The bytes of a tensor's storage on the host, perhaps still under way."""
        content, copy = _bytes(tensor), self._copies.get(tensor)
        if copy is None:
            copy = torch.empty_like(content, device="cpu", pin_memory=tensor.is_cuda)
        return copy.copy_(content, non_blocking=True)


def is_freed(tensor: Tensor) -> bool:
    """Whether a tensor has values and no memory that holds them."""
    return tensor.numel() > 0 and tensor.untyped_storage().size() == 0


def require_restored(optimizer: Optimizer) -> None:
    """Nothing reads or saves a state that lies on the host."""
    freed = sum(map(is_freed, _owners(optimizer)))
    assert not freed, f"{freed} tensors of the optimiser's state are on the host"


def _owners(optimizer: Optimizer) -> list[Tensor]:
    """One tensor for every storage of the state; of a sharded one, this rank's part.

    Scalars stay where they are: AdamW's step is on the host, or a few bytes.
    """
    owners: dict[int, Tensor] = {}
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor) and value.dim() > 0:
                local = value._local_tensor if isinstance(value, DTensor) else value
                owners.setdefault(local.untyped_storage()._cdata, local)
    return list(owners.values())


def _bytes(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


def _wait(tensors: Iterable[Tensor]) -> None:
    if any(tensor.is_cuda for tensor in tensors):
        torch.cuda.synchronize()  # page-locked memory is copied in the background
