"""(e) Weight sync to the real vLLM engine beside a plain copy of the same bytes.

Both read the policy's tensors in the engine's order; the copy writes into buffers that are there
already. They take turns.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.axes import Axes
from rich.table import Table
from transformers import PreTrainedModel
from workload import SHAPES, TINY, Shape

from rlrt.engine.engine import EngineSpec, engine_weights
from rlrt.engine.vllm_engine import VLLMEngine

TITLE = "weight sync beside a plain copy"
MODELS, QUICK = ("tiny", "medium"), ("toy",)
REPEATS = 9
LONGEST = 512  # tokens that the engine takes


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per model."""
    return [compare(SHAPES[name], 2 if quick else REPEATS) for name in (QUICK if quick else MODELS)]


def compare(shape: Shape, repeats: int) -> dict[str, Any]:
    """Seconds of every sync and of every copy."""
    policy = shape.policy()
    with tempfile.TemporaryDirectory() as folder:
        write_model(policy, Path(folder))
        engine = VLLMEngine(max_sequences=8)
        engine.start(policy, EngineSpec(folder, (2,), torch.float32, LONGEST))
    weights = list(engine_weights(policy, torch.float32))
    buffers = [torch.empty_like(tensor) for _, tensor in weights]

    def copy() -> None:
        for buffer, (_, tensor) in zip(buffers, weights, strict=True):
            buffer.copy_(tensor)

    doing = {"sync": lambda: engine.sync(engine_weights(policy, torch.float32)), "copy": copy}
    seconds: dict[str, list[float]] = {name: [] for name in doing}
    for turn in range(repeats + 1):  # the first warms up
        for name, act in doing.items():
            spent = timed(act)
            if turn:
                seconds[name].append(spent)
    engine.close()
    return {
        "model": shape.name,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for _, tensor in weights),
        "tensors": len(weights),
        "seconds": seconds,
    }


def write_model(policy: PreTrainedModel, folder: Path) -> None:
    """What the engine reads of a model: all but its weights."""
    policy.config.save_pretrained(folder)
    for file in Path(TINY).iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)


def timed(act: Callable[[], None]) -> float:
    """Seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def table(rows: list[dict[str, Any]]) -> Table:
    """Medians."""
    output = Table("model", "parameters", "MB", "sync s", "copy s", "sync / copy", title=TITLE)
    for row in rows:
        sync, copy = (median(row["seconds"][name]) for name in ("sync", "copy"))
        size = (f"{row['parameters'] / 1e6:.1f} M", f"{row['bytes'] / 1e6:.0f}")
        output.add_row(row["model"], *size, f"{sync:.4f}", f"{copy:.4f}", f"{sync / copy:.1f}")
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Seconds of both, logarithmic."""
    for place, (name, color) in enumerate((("sync", "#4477aa"), ("copy", "#bbbbbb"))):
        where = [x + 0.35 * place for x in range(len(rows))]
        axes.bar(where, [median(r["seconds"][name]) for r in rows], 0.35, color=color, label=name)
    labels = [f"{row['model']}, {row['bytes'] / 1e6:.0f} MB" for row in rows]
    axes.set_xticks([x + 0.175 for x in range(len(rows))], labels)
    axes.set(yscale="log", ylabel="s")
    axes.legend(fontsize=7)
