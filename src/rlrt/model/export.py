"""A policy written out as a Hugging Face folder, and what such a folder says of itself."""

import copy
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt import distributed
from rlrt.files import put_in_place, sync

ABOUT = "rlrt.json"
FILE_BYTES = 5_000_000_000  # of one weight file; so much of the policy waits on the host of rank 0


@dataclass(frozen=True)
class Origin:
    """Where exported weights come from: how many rollout steps made them, in which run."""

    rollout_steps: int
    run: str


def export(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dtype: torch.dtype,
    origin: Origin | None = None,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write a folder that transformers and vLLM load; it appears whole or not at all.

    The policy stays as it is: its tensors are cast to ``dtype`` and gathered one at a time, and no more
    than one file of them is held at once. Tied ones are written once. Collective; rank 0 writes.
    """
    tensors = _distinct(policy)
    shapes = {n: torch.empty(t.shape, dtype=dtype, device="meta") for n, t in tensors.items()}
    files = split_torch_state_dict_into_shards(shapes, max_shard_size=file_bytes)
    partial = folder.with_name(f".{folder.name}.partial")
    writes = distributed.get_rank() == 0
    try:
        if writes:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        for file, names in files.filename_to_tensors.items():
            held = {}
            for name in names:
                tensor = distributed.full_tensor(tensors[name].to(dtype))  # cast before it travels
                if writes:
                    held[name] = tensor.cpu().contiguous()
                del tensor
            if writes:
                save_file(held, partial / file, metadata={"format": "pt"})
        if not writes:
            return
        if files.is_sharded:
            index = {"metadata": files.metadata, "weight_map": files.tensor_to_filename}
            _write_json(partial / "model.safetensors.index.json", index)
        _write_settings(policy, partial, dtype)
        tokenizer.save_pretrained(partial)
        if origin is not None:
            _write_json(partial / ABOUT, asdict(origin))
        for path in (*partial.iterdir(), partial):
            sync(path)
        put_in_place(partial, folder)
    finally:
        if writes:
            shutil.rmtree(partial, ignore_errors=True)


def read_origin(folder: Path) -> Origin:
    """What an export says of itself; ValueError with one sentence where it does not."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        steps, run = about["rollout_steps"], about.get("run", "")
        if type(steps) is not int or steps < 0:
            raise TypeError(f"rollout_steps is {steps!r}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder} does not say how many rollout steps made it ({ABOUT}: {type(error).__name__}): "
            f'write {{"rollout_steps": <number>}} there, or name one of the run\'s checkpoints'
        ) from error
    return Origin(steps, str(run))


def _distinct(policy: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor of the policy by the first of its names, in layer order; sharded ones as they are."""
    first_of: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in policy.state_dict(keep_vars=True).items():
        first_of.setdefault(id(tensor), (name, tensor.detach()))
    return dict(first_of.values())


def _write_settings(policy: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    config = copy.deepcopy(policy.config)
    config.dtype = str(dtype).removeprefix("torch.")
    config.architectures = [type(policy).__name__]
    config.save_pretrained(folder)
    if policy.generation_config is not None:
        policy.generation_config.save_pretrained(folder)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
