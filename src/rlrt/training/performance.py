"""How fast a step ran, how much of the machine that is, and the memory that it took."""

import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache

import torch

from rlrt.distributed import all_reduce_max, all_reduce_sum, get_world_size, largest

# Dense peak in FLOP/s of half-precision products with float32 accumulation, by words of the name
# that torch.cuda.get_device_name gives; the first that fits. From NVIDIA's data sheets.
HALF_PRECISION_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,  # SXM: "H100 80GB HBM3"
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
SECONDS = 0.1  # of measuring where the device is in no table
GIB = 2**30


@dataclass(frozen=True)
class Work:
    """What a stage of a step did on one rank; sums of two are their work together."""

    flops: float = 0.0  # model FLOPs, functional/flops.py
    tokens: float = 0.0  # that went through the layers, prompts included
    seconds: float = 0.0
    attention_slots: float = 0.0
    padded_slots: float = 0.0  # of them

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def performance(stages: Mapping[str, Work], peak: float) -> dict[str, float]:
    """``<stage>/tokens_per_s``, ``mfu`` and ``padding_waste`` over all ranks; collective, of the same
    stages on each.

    Model FLOP utilisation is ``FLOPs of all ranks / sum over ranks of (seconds · peak)``, the peak in
    FLOP/s being each rank's own: that is FLOPs / (seconds · peak · ranks) where they are alike
    (PaLM, arXiv:2204.02311, appendix B). Tokens per second are of the whole run. Padding waste is the
    share of attention slots that hold padding. What a stage without any work lacks is left out.
    """
    own = [[*astuple(work), work.seconds * peak] for work in stages.values()]
    sums = all_reduce_sum(torch.tensor(own, dtype=torch.float64)).tolist()
    found: dict[str, float] = {}
    for stage, (flops, tokens, seconds, slots, padded, possible) in zip(stages, sums, strict=True):
        if seconds > 0:
            found[f"{stage}/tokens_per_s"] = tokens / (seconds / get_world_size())
            found[f"{stage}/mfu"] = flops / possible
        if slots > 0:
            found[f"{stage}/padding_waste"] = padded / slots
    return found


def idle_share(tokens: Sequence[float]) -> float:
    """How much of the ranks' time is spent waiting for the one with the most tokens; collective.

    ``tokens`` are this rank's, between one moment at which all wait for each other and the next:
    ``1 - sum of the ranks' means / sum of their maxima``, 0 for one rank and where there is no token.
    """
    own = torch.tensor(tokens, dtype=torch.float64)
    most = float(all_reduce_max(own).sum())
    return 1 - float(all_reduce_sum(own).sum()) / get_world_size() / most if most else 0.0


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The most FLOP/s that matrix products reach on a device in a dtype.

    From the data sheet for half precision on a card that is in the table. Otherwise measured once
    per process, by square products with the threads that the run has.
    """
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        known = data_sheet_peak(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    return _measured_flops(device, dtype)


def data_sheet_peak(name: str) -> float | None:
    """The half-precision peak of a card by its name, FLOP/s; None where it is in no table."""
    words = set(re.split(r"[\s-]+", name))  # whole words: an L40 is no L4
    fitting = (peak for card, peak in HALF_PRECISION_PEAKS.items() if words >= set(card.split()))
    return next(fitting, None)


def _measured_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The best of products of a size that takes a few milliseconds, for ``SECONDS``."""
    size = 4096 if device.type == "cuda" else 768
    left = torch.full((size, size), 0.5, device=device, dtype=dtype)
    result = torch.mm(left, left)  # the libraries choose their kernel, memory is taken
    best = float("inf")
    until = time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < until:
        _wait_for(device)
        began = time.perf_counter()
        torch.mm(left, left, out=result)
        _wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak_memory(device: torch.device) -> None:
    """A step begins: the peak of a GPU is counted from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """``memory/peak_gib``: the largest of the ranks, of this process alone; collective.

    On a GPU what PyTorch had allocated since ``forget_peak_memory``. On the CPU the process's largest
    resident set ever: the system forgets no peak, so over a run it only grows.
    """
    if device.type == "cuda":
        taken = torch.cuda.max_memory_allocated(device)
    else:
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken *= 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return {"memory/peak_gib": largest(taken) / GIB}
