"""The optimizer of a run, its learning rate, and AdamW with its moments in the host's memory."""

import mmap
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.adamw import adamw

from rlrt.validation import validated

CHUNK = 1 << 25  # entries of a moment on the device at a time: 128 MiB of float32
SLOTS = 3  # chunks there: one arrives, one is updated, one leaves
STATES = ("exp_avg", "exp_avg_sq")  # AdamW's two moments, by their names in its state


class HostAdamW(AdamW):
    """``torch.optim.AdamW(fused=True)`` to the bit, with both moments on the host.

    A step brings them to the device in chunks, updates parameter and moments there by AdamW's own fused
    kernel, and writes them back; on a GPU from and to page-locked memory, on streams of their own,
    while the next chunk arrives. The device holds ``2 · SLOTS · chunk`` entries during a step and
    nothing between steps. All parameters lie on one device; of a sharded one every rank keeps its own
    part. The state dict is AdamW's: a checkpoint of either goes on with the other.
    """

    def __init__(self, params: Any, *, chunk: int = CHUNK, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        self._chunk = chunk

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with_grad = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if with_grad:
            largest = max(_own(parameter).numel() for parameter, _ in with_grad)
            pipe = _Pipe(_own(with_grad[0][0]).device, min(self._chunk, largest))
            for parameter, group in with_grad:
                self._update(parameter, group, pipe)
            pipe.drain()
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any], pipe: "_Pipe") -> None:
        assert parameter.grad is not None
        value, grad = _own(parameter), _own(parameter.grad)
        state = self.state[parameter]
        if not state:
            state = self.state[parameter] = _HostState.for_parameter(parameter)
        done = float(state["step"])
        state["step"] += 1
        moments = [_own(state[name]).view(-1) for name in STATES]
        beta1, beta2 = group["betas"]
        flat, slopes = value.view(-1), grad.reshape(-1)
        for part, (average, square) in pipe.through(moments):
            adamw(
                [flat[part]],
                [slopes[part]],
                [average],
                [square],
                [],
                [torch.full((), done, device=value.device)],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """AdamW's, with the moments as they lie on the host."""
        state = super().state_dict()
        return state | {"state": {name: dict(own) for name, own in state["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As AdamW's; the moments go from where they are to the host, never to the device."""
        super().load_state_dict(state_dict | {"state": {}})
        saved = [name for group in state_dict["param_groups"] for name in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for name, parameter in zip(saved, own, strict=True):
            if name in state_dict["state"]:
                self.state[parameter] = _HostState.for_parameter(parameter)
                self.state[parameter].update(state_dict["state"][name])


class _HostState(dict[str, Tensor]):
    """Step and moments of a parameter: a moment that is set is copied into its place on the host.

    So they stay there when the trainer moves an optimizer's state to its device.
    """

    @classmethod
    def for_parameter(cls, parameter: Tensor) -> "_HostState":
        """Those of a parameter that has made no step; a sharded one's lie on the same ranks."""
        state = cls()
        dict.__setitem__(state, "step", torch.zeros(()))
        local = _own(parameter.detach())
        for name in STATES:
            zeros = _host_zeros(local)
            if local.is_cuda:
                _page_lock(zeros)
            kept: Tensor = zeros
            if isinstance(parameter, DTensor):
                kept = DTensor(zeros, parameter._spec, requires_grad=False)
            dict.__setitem__(state, name, kept)
        return state

    def __setitem__(self, name: str, value: Any) -> None:
        _own(self[name]).copy_(_own(torch.as_tensor(value)))

    def update(self, values: dict[str, Any]) -> None:  # type: ignore[override]
        """Copy every value into its place; dict's own would replace them."""
        for name, value in values.items():
            self[name] = value


class _Pipe:
    """Chunks of host tensors on their way through a device, in order, and back."""

    def __init__(self, device: torch.device, chunk: int) -> None:
        self._device, self._chunk = device, chunk
        self._slots: dict[tuple[int, int, torch.dtype], Tensor] = {}
        self._next = 0
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        self._left: list[torch.cuda.Event | None] = [None] * SLOTS  # when a slot was last emptied
        if device.type == "cuda":
            self._streams = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def through(self, tensors: list[Tensor]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Each part of flat host tensors of one length, as device tensors to be changed in place.

        What they hold when the next part is asked for is what the host gets.
        """
        for start in range(0, len(tensors[0]), self._chunk):
            part = slice(start, min(start + self._chunk, len(tensors[0])))
            slot, self._next = self._next, (self._next + 1) % SLOTS
            on_device = [
                self._buffer(slot, place, tensor.dtype)[: part.stop - part.start]
                for place, tensor in enumerate(tensors)
            ]
            self._arrive(slot, on_device, [tensor[part] for tensor in tensors])
            yield part, on_device
            self._leave(slot, on_device, [tensor[part] for tensor in tensors])

    def _buffer(self, slot: int, place: int, dtype: torch.dtype) -> Tensor:
        key = (slot, place, dtype)
        if key not in self._slots:
            self._slots[key] = torch.empty(self._chunk, dtype=dtype, device=self._device)
            if self._streams is not None:  # what had this memory before may still be computing
                self._streams[0].wait_stream(torch.cuda.current_stream(self._device))
        return self._slots[key]

    def _arrive(self, slot: int, on_device: list[Tensor], on_host: list[Tensor]) -> None:
        arriving = None if self._streams is None else self._streams[0]
        with torch.cuda.stream(arriving):  # of None: no stream of its own
            if arriving is not None and (emptied := self._left[slot]) is not None:
                arriving.wait_event(emptied)
            for to, tensor in zip(on_device, on_host, strict=True):
                to.copy_(tensor, non_blocking=True)
        if arriving is not None:
            torch.cuda.current_stream(self._device).wait_event(arriving.record_event())

    def _leave(self, slot: int, on_device: list[Tensor], on_host: list[Tensor]) -> None:
        leaving = None if self._streams is None else self._streams[1]
        if leaving is not None:
            leaving.wait_event(torch.cuda.current_stream(self._device).record_event())
        with torch.cuda.stream(leaving):
            for tensor, value in zip(on_host, on_device, strict=True):
                tensor.copy_(value, non_blocking=True)
        if leaving is not None:
            self._left[slot] = leaving.record_event()

    def drain(self) -> None:
        """Wait until all is back on the host; the device's memory may then be given up."""
        for stream in self._streams or ():
            stream.synchronize()


def _host_zeros(like: Tensor) -> Tensor:
    """Zeros on the host, in the shape of a tensor, on pages of their own: two ranges that are page-locked
    must share none, and small tensors of an allocator do. PyTorch's page-locked ones take powers of two.
    """
    if not like.numel():
        return torch.zeros(like.shape, dtype=like.dtype)
    pages = mmap.mmap(-1, like.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=like.dtype).view(like.shape)


def _page_lock(tensor: Tensor) -> None:
    """Page-lock a host tensor where it lies, for as long as it is there."""
    if not tensor.numel():
        return
    runtime, address = torch.cuda.cudart(), tensor.data_ptr()
    torch.cuda.check_error(int(runtime.cudaHostRegister(address, tensor.nbytes, 0)))
    weakref.finalize(tensor, runtime.cudaHostUnregister, address)


def _own(tensor: Tensor) -> Tensor:
    """The tensor, or this rank's part of it where it is spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


Moments = Literal["auto", "device", "host"]
Beta = Annotated[float, Field(ge=0, lt=1)]


@validated("optimization")
@dataclass(frozen=True)
class Optimization:
    """AdamW, a rate that rises linearly over ``warmup_steps`` rollout steps and then stays, and the
    clip of the gradient's norm.

    ``moments``: where AdamW's two moments live, on the device or the host; auto leaves it to who knows
    what a card holds, and is the device where nobody does. The updates are the same to the bit.
    """

    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 0.01
    betas: Annotated[tuple[Beta, Beta], Field(description="both must lie in [0, 1)")] = (0.9, 0.999)
    warmup_steps: NonNegativeInt = 10
    max_grad_norm: PositiveFloat = 1.0
    moments: Moments = "auto"

    def build(self, policy: nn.Module) -> dict[str, Any]:
        """Optimizer and scheduler, in the form that Lightning takes."""
        settings: dict[str, Any] = {
            "lr": self.learning_rate,
            "betas": self.betas,
            "weight_decay": self.weight_decay,
        }
        optimizer = (
            HostAdamW(policy.parameters(), **settings)
            if self.moments == "host"
            # makes no temporary tensor of a parameter's size
            else torch.optim.AdamW(policy.parameters(), fused=True, **settings)
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: min((done + 1) / max(self.warmup_steps, 1), 1.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
