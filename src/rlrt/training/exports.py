"""The policy as Hugging Face folders: after the steps that are asked for, and at the end."""

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt import distributed
from rlrt.files import put_in_place, remove, sync
from rlrt.training.module import PolicyModule

FINAL = "export"
BY_STEP = "exports"
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
            file_tensors = {}
            for name in names:
                tensor = distributed.full_tensor(tensors[name].to(dtype))  # cast before it travels
                if writes:
                    file_tensors[name] = tensor.cpu().contiguous()
                del tensor
            if writes:
                save_file(file_tensors, partial / file, metadata={"format": "pt"})
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


class Exports(L.Callback):
    """Writes ``exports/step-000010`` after 10 rollout steps, and ``export`` after the last, in ``dtype``.

    After step 0 means the policy as the run began. A step is due that ``every_n_steps`` (null: none)
    divides or that ``steps`` names. Nothing removes an export but a run resumed before it.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype,
        every_n_steps: int | None = None,
        steps: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.every_n_steps = every_n_steps
        self.steps = steps

    def on_train_epoch_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        # Before the next step and not after the last: a run that was killed in between, and goes on
        # from its checkpoint, comes by here again.
        self._write_due(module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remove what an earlier course of this run, resumed before its end, has made of later steps."""
        if distributed.get_rank() != 0:
            return
        for path in _folders(self.folder):
            with suppress(ValueError):  # not one of this run's making
                if read_origin(path).rollout_steps > trainer.current_epoch + 1:
                    remove(path)

    def finish(self, module: PolicyModule, step: int) -> None:
        """Export the last weights; collective."""
        self._write_due(module, step)
        self._write(module, step, self.folder / FINAL)

    def _write_due(self, module: PolicyModule, step: int) -> None:
        every = self.every_n_steps
        if step in self.steps or (every is not None and step % every == 0):
            self._write(module, step, self.folder / BY_STEP / f"step-{step:06d}")

    def _write(self, module: PolicyModule, step: int, folder: Path) -> None:
        run = "/".join(self.folder.resolve().parts[-2:])
        export(module.policy.causal_lm, self.tokenizer, folder, self.dtype, Origin(step, run))


def exports_by_step(run: Path) -> dict[int, Path]:
    """The exports of a run folder by the rollout steps that made them; of two of one step the final one.

    ValueError with one sentence where one does not say its step.
    """
    return {read_origin(path).rollout_steps: path for path in _folders(run)}


def _folders(run: Path) -> Iterator[Path]:
    """Every export that is there, the final one last."""
    folders = [*sorted((run / BY_STEP).glob("step-*")), run / FINAL]
    return (path for path in folders if (path / "config.json").is_file())
