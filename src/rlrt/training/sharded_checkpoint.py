"""Folders that PyTorch's distributed checkpoint writes, read without running what they pickle.

PyTorch's own reader takes the layout (``.metadata``) and every value that is no tensor through
``pickle`` as they come. Here the layout may name its own classes alone, and the rest is loaded with
``weights_only``; a folder that has passed once holds nothing that PyTorch's reader could run.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

LAYOUT = ".metadata"
EXTRA = "meta.pt"  # what Lightning keeps beside weights and optimizer state
LAYOUT_CLASSES = {
    ("pathlib", "PosixPath"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
}


class _LayoutUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) not in LAYOUT_CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a checkpoint's layout")
        return super().find_class(module, name)


def read_extra(folder: Path) -> dict[str, Any]:
    """Counters, schedulers and all else that is neither weight nor optimizer state.

    UnpicklingError where any part of the folder holds more than tensors and plain values.
    """
    layout = _read_layout(folder)
    for index, place in layout.storage_data.items():
        if not isinstance(layout.state_dict_metadata[index.fqn], TensorStorageMetadata):
            _read(folder, place)  # PyTorch's reader would run it; of tensors it does not
    extra: dict[str, Any] = torch.load(folder / EXTRA, map_location="cpu", weights_only=True)
    return extra


def read_whole(folder: Path) -> dict[str, Any]:
    """What a single process would have saved: all shards put together, on the host.

    Optimizer state is numbered in the order of the parameter groups, as PyTorch numbers it.
    """
    layout = _read_layout(folder)
    values = _put_together(folder, layout)
    nested: dict[Any, Any] = {}
    for name, keys in layout.planner_data.items():
        inner = nested
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = values[name]
    optimizers = [nested[f"optimizer_{number}"] for number in range(len(nested) - 1)]
    return read_extra(folder) | {
        "state_dict": nested["state_dict"],
        "optimizer_states": [_numbered(optimizer) for optimizer in optimizers],
    }


def _read_layout(folder: Path) -> Metadata:
    with (folder / LAYOUT).open("rb") as file:
        layout: Metadata = _LayoutUnpickler(file).load()
    return layout


def _read(folder: Path, place: Any) -> Any:
    with (folder / Path(place.relative_path).name).open("rb") as file:
        file.seek(place.offset)
        return torch.load(io.BytesIO(file.read(place.length)), weights_only=True)


def _put_together(folder: Path, layout: Metadata) -> dict[str, Any]:
    """Every tensor from its chunks, and every other value, by its full name."""
    values: dict[str, Any] = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in layout.state_dict_metadata.items()
        if isinstance(about, TensorStorageMetadata)
    }
    missing = {name: value.numel() for name, value in values.items()}
    for index, place in layout.storage_data.items():
        value = _read(folder, place)
        if index.fqn not in missing:
            values[index.fqn] = value
            continue
        chunk = values[index.fqn]
        for dimension, (start, length) in enumerate(zip(index.offset, value.shape, strict=True)):
            chunk = chunk.narrow(dimension, start, length)
        chunk.copy_(value)
        missing[index.fqn] -= value.numel()
    assert not any(missing.values()), missing
    return values


def _numbered(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Optimizer state with numbers in place of the parameters' names."""
    groups = [group for _, group in sorted(optimizer["param_groups"].items())]
    names = [name for group in groups for name in group["params"]]
    number = {name: index for index, name in enumerate(names)}
    return {
        "state": {number[name]: state for name, state in optimizer.get("state", {}).items()},
        "param_groups": [
            group | {"params": [number[name] for name in group["params"]]} for group in groups
        ],
    }
