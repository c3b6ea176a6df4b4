"""How fast a step ran, how much of the machine that is, and the memory that it took.

Model FLOPs are counted from the model's shape: what its matrix products must do, whatever else is
computed.
"""

import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import torch
from transformers import PretrainedConfig

from rlrt.distributed import all_reduce_max, all_reduce_sum, get_world_size, largest
from rlrt.model.packing import Packed

BACKWARD = 2.0  # in forwards: one product for the gradient of the input, one for that of the weight


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder with grouped-query attention and a gated MLP (Llama, Qwen2, Qwen3)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Any) -> "Shape":
        """The shape from a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
        )

    @property
    def layer_parameters(self) -> int:
        """Parameters in the matrices of one layer: q, k, v, o, and the three of the MLP."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def forward(self, tokens: float, head_tokens: float, pairs: float) -> float:
        """FLOPs of a forward of ``tokens`` through the layers and ``head_tokens`` through the head:

            2 · P_layers · tokens + 2 · V · H · head_tokens + 4 · layers · heads · head_dim · pairs

        (PaLM, arXiv:2204.02311, appendix B, which counts forward and backward together and every
        pair of positions). ``pairs`` are those that causal attention looks at, each q · k and
        weight · v of one head once: two products of ``head_dim``. A multiply-add counts as 2;
        norms, softmax and the embedding's lookup count as nothing. A backward costs ``BACKWARD``
        forwards; what checkpointing or the fused head compute again is no model FLOP.
        """
        layers = 2 * self.layers * self.layer_parameters * tokens
        head = 2 * self.vocabulary * self.hidden * head_tokens
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        return float(layers + head + attention)


def causal_pairs(lengths: Sequence[int], before: int = 0) -> int:
    """Pairs of a query and a key at or before it, of sequences that follow ``before`` shared tokens.

    The pairs within the shared tokens themselves are not in it.
    """
    return sum(length * before + length * (length + 1) // 2 for length in lengths)


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

    flops: float = 0.0  # model FLOPs
    tokens: float = 0.0  # that went through the layers, prompts included
    seconds: float = 0.0
    attention_slots: float = 0.0
    padded_slots: float = 0.0  # of them

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Work") -> "Work":
        return Work(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


def work_of_pack(
    packed: Packed, config: PretrainedConfig, device: torch.device, backward: bool = False
) -> Work:
    """What a forward of a pack costs a model of this configuration, or a forward and its backward."""
    # a GPU's kernel for sequences of uneven length pads nothing
    padding = packed.attention_padding if device.type == "cpu" else 0.0
    slots = len(packed.sequence_U) / (1 - padding)
    shape = Shape.from_config(config)
    flops = shape.forward(packed.tokens, len(packed.predicting_N), packed.attended_pairs)
    return Work(
        flops * (1 + BACKWARD if backward else 1),
        packed.tokens,
        attention_slots=slots,
        padded_slots=slots * padding,
    )


def performance(stages: Mapping[str, Work], peak: float) -> dict[str, float]:
    """``<stage>/tokens_per_s``, ``mfu`` and ``padding_waste`` over all ranks; collective, of the same
    stages on each.

    Model FLOP utilization is ``FLOPs of all ranks / sum over ranks of (seconds · peak)``, the peak in
    FLOP/s being each rank's own: that is FLOPs / (seconds · peak · ranks) where they are alike
    (PaLM, arXiv:2204.02311, appendix B). Tokens per second are of the whole run. Padding waste is the
    share of attention slots that hold padding. What a stage without any work lacks is left out.
    """
    own = [[*astuple(work), work.seconds * peak] for work in stages.values()]
    sums = all_reduce_sum(torch.tensor(own, dtype=torch.float64)).tolist()
    metrics: dict[str, float] = {}
    for stage, (flops, tokens, seconds, slots, padded, possible) in zip(stages, sums, strict=True):
        if seconds > 0:
            metrics[f"{stage}/tokens_per_s"] = tokens / (seconds / get_world_size())
            metrics[f"{stage}/mfu"] = flops / possible
        if slots > 0:
            metrics[f"{stage}/padding_waste"] = padded / slots
    return metrics


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
