"""Checkpoints: written atomically, verified before they are loaded, free of pickled objects."""

import io
import json
import os
import pickle
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from pydantic import Field, PositiveInt
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from rlrt import distributed
from rlrt.errors import RunStoppedError, UserError
from rlrt.files import (
    interrupts_wait,
    put_in_place,
    recover,
    remove,
    sync,
    write_atomically,
    write_text,
)
from rlrt.training.metrics import StepTable
from rlrt.validation import validated

LAYOUT = ".metadata"
EXTRA = "meta.pt"  # what Lightning keeps beside weights and optimizer state
SUFFIX = ".ckpt"
MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 22
WRITER = "inline_container"  # what PyTorch's writer names in its errors, whatever the system said

Sums = dict[str, list[int]]  # of each file by its name: size in bytes and CRC-32


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is what was written.

    Of a file, by the checksums of its zip records; of a folder, by its manifest.
    """
    try:
        if path.is_dir():
            manifest = json.loads((path / MANIFEST).read_text())
            files = [file for file in path.iterdir() if file.name != MANIFEST]
            sizes = {file.name: file.stat().st_size for file in files}
            if sizes != {name: size for name, (size, _) in manifest.items()}:
                return False
            return sums(files) == manifest
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False
    except (ValueError, TypeError, AttributeError):  # the manifest's content is not one
        return False


def sums(files: Iterable[Path]) -> Sums:
    """Size and checksum of each file, read several at a time."""

    def read(path: Path) -> tuple[str, list[int]]:
        size = check = 0
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                size += len(block)
                check = zlib.crc32(block, check)
        return path.name, [size, check]

    with ThreadPoolExecutor() as threads:
        return dict(threads.map(read, files))


def write_manifest(folder: Path, written: Mapping[str, list[int]]) -> None:
    """Seal a folder of shards: from now on it counts as whole, once it has its name."""
    write_text(folder / MANIFEST, json.dumps(dict(sorted(written.items())), indent=1))


def link(target: Path, name: Path) -> None:
    """Make ``name`` a second name of the files of ``target``, which lives on when that is removed."""
    partial = name.with_name(f".{name.name}.partial")
    remove(partial)
    if target.is_dir():
        partial.mkdir()
        for file in target.iterdir():
            os.link(file, partial / file.name)
    else:
        os.link(target, partial)
    put_in_place(partial, name)


def is_linked(one: Path, other: Path) -> bool:
    """Whether two checkpoints are names of the same files."""
    mine, theirs = (path / MANIFEST if path.is_dir() else path for path in (one, other))
    return mine.exists() and theirs.exists() and mine.samefile(theirs)


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """PyTorch's writer hides why it failed: say it. OSError where the system said no, and it is known;
    else RunStoppedError.
    """
    try:
        yield
    except CheckpointException as failed:  # raised on all ranks for any of them; no Exception
        error = next(error for error, _ in failed.failures.values())
        raise _plain(error, path) from None
    except RuntimeError as error:
        raise _plain(error, path) from None


def _plain(error: BaseException, path: Path) -> BaseException:
    if not isinstance(error, RuntimeError) or WRITER not in str(error):
        return error
    if isinstance(error.__context__, OSError):
        return error.__context__
    return RunStoppedError(f"{path} could not be written: the disk is full, or it fails")


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
    """PyTorch's own reader takes the layout of a folder of shards, and every value that is no tensor,
    through ``pickle`` as they come. Here the layout may name its own classes alone, and the rest is
    loaded with ``weights_only``: a folder that has passed once holds nothing that PyTorch could run.
    """

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


PATTERN = f"step-*{SUFFIX}"  # no "=": Hydra takes resume=<path> from the command line
KEPT_RANGE = "it must be at least 2: one may be damaged"


class DamagedCheckpointError(UserError):
    """A checkpoint cannot be trusted; the message names one that can."""


class AtomicCheckpointIO(CheckpointIO):
    """Saves through a partial file and a rename; loads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        def write(partial: Path) -> None:
            # by a file of Python's own, whose error is known
            with plain_errors(Path(path)), partial.open("wb") as file:
                torch.save(checkpoint, file)

        write_atomically(Path(path), write)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path).is_dir():  # several ranks have written it, and one alone reads it
            return read_whole(Path(path))
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))


def completed_steps(path: Path) -> int:
    """How many rollout steps made the weights of a complete checkpoint.

    UnpicklingError where it holds more than tensors and plain values.
    """
    if path.is_dir():
        return int(read_extra(path)["rollout_steps"])
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["rollout_steps"])


def run_folder(resume: Path) -> Path:
    """The run folder that ``resume`` is, or in whose ``checkpoints`` it lies."""
    if resume.is_dir() and resume.suffix != SUFFIX:
        return resume
    return resume.resolve().parent.parent


def find_checkpoint(resume: Path, verify: bool = True) -> Path | None:
    """The checkpoint to go on from: the one named, or the newest of a run folder.

    None for a run folder that has none yet. With ``verify`` every byte of it is read:
    DamagedCheckpointError where it is damaged, naming the one before it. UserError where ``resume``
    does not exist.
    """
    if not resume.exists():
        raise UserError(f"resume is {resume}, and no such run folder or checkpoint exists")
    is_run = run_folder(resume) == resume
    folder = resume / "checkpoints" if is_run else resume.parent
    saved = sorted(folder.glob(PATTERN), reverse=True)
    if is_run and not saved:
        return None
    chosen = saved[0] if is_run else resume
    if not verify or is_whole(chosen):
        return chosen
    # last.ckpt and best.ckpt are links
    names = [path.name for path in saved if path == chosen or is_linked(path, chosen)]
    others = [path for path in saved if (not names or path.name < names[0]) and is_whole(path)]
    offer = (
        f"go on from the one before it with resume={others[0]}" if others else "no other is whole"
    )
    raise DamagedCheckpointError(f"the checkpoint {chosen} is damaged; {offer}")


class Checkpoints(Checkpoint):
    """Saves after every ``every_n_steps`` rollout steps; keeps the newest ``keep`` and the best.

    A checkpoint is a file, or a folder where every rank of a sharded policy writes its own part.
    ``last.ckpt`` and ``best.ckpt`` are hard links. The best is the one whose weights ``evaluations``,
    which rank 0 keeps, ranks highest by ``score``, a column of evaluation.csv; the start is not a
    candidate.
    """

    @validated("checkpoint")
    def __init__(
        self,
        folder: Path,
        evaluations: StepTable,
        score: str,
        every_n_steps: PositiveInt = 1,
        keep: Annotated[int, Field(ge=2, description=KEPT_RANGE)] = 2,
    ) -> None:
        self.folder = folder
        self.evaluations = evaluations
        self.score = score
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.seconds: float | None = None  # that the latest took
        self.unverified: Path | None = None  # that the run resumes from

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Rank 0 verifies what the run resumes from, where it has not yet, and tells the others."""
        damage = None
        if distributed.get_rank() == 0 and self.unverified is not None:
            try:
                find_checkpoint(self.unverified)
            except DamagedCheckpointError as error:
                damage = str(error)
        if damaged := distributed.all_gather_object(damage)[0]:
            raise DamagedCheckpointError(damaged)

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["rollout_steps"] = trainer.current_epoch + 1

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.link_best()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self.every_n_steps and done != trainer.max_epochs:
            return
        began = time.perf_counter()
        self._save(trainer, self._path(done))
        self.seconds = time.perf_counter() - began

    @interrupts_wait()
    def _save(self, trainer: L.Trainer, path: Path) -> None:
        """Have all ranks write; rank 0 then gives the checkpoint its name and removes old ones."""
        partial = path.with_name(f".{path.name}.partial")
        if distributed.get_rank() == 0:
            for left in self.folder.glob(".*step-*"):  # by a process that was killed
                remove(left)
        trainer.strategy.barrier()
        try:
            with plain_errors(path):
                trainer.save_checkpoint(partial)
        except BaseException:
            if distributed.get_rank() == 0:
                remove(partial)  # a disk that is full need not stay so
            raise
        if partial.is_dir():
            _seal(partial)
        if distributed.get_rank() == 0:
            put_in_place(partial, path)
            link(path, self.folder / "last.ckpt")
            self._remove_old(path)
        trainer.strategy.barrier()

    def _remove_old(self, latest: Path) -> None:
        saved = sorted(self.folder.glob(PATTERN))
        # later ones were left by a run that this one, resumed before them, takes the place of
        newest = [other for other in saved if other.name <= latest.name][-self.keep :]
        for other in saved:
            if other not in newest:
                remove(other)

    def link_best(self) -> None:
        """Make ``best.ckpt`` the checkpoint that was evaluated last, if none was better."""
        if distributed.get_rank() != 0:
            return
        best = self.folder / "best.ckpt"
        recover(best)
        rows = [row for row in self.evaluations.rows if int(row["step"]) > 0]
        if not rows or float(rows[-1][self.score]) < max(float(row[self.score]) for row in rows):
            return
        path = self._path(int(rows[-1]["step"]))
        if path.exists():
            link(path, best)

    def _path(self, steps: int) -> Path:
        return self.folder / f"step-{steps:06d}{SUFFIX}"


def _seal(folder: Path) -> None:
    """Bring a folder of shards to the disk and write its manifest; collective.

    Every rank reads back what it has written; rank 0 also what belongs to all of them.
    """
    own = (f"__{distributed.get_rank()}_", *((".", "meta") if distributed.get_rank() == 0 else ()))
    files = [file for file in folder.iterdir() if file.name.startswith(own)]
    for file in files:
        sync(file)
    parts = distributed.all_gather_object(sums(files))
    if distributed.get_rank() != 0:
        return
    written = {name: about for part in parts for name, about in part.items()}
    missing = [name for name in sorted(written) if not (folder / name).exists()]
    if missing:
        raise RunStoppedError(
            f"{folder.parent} lacks {missing[0]}, which another rank has written there: a sharded "
            "checkpoint needs a folder that all hosts share"
        )
    write_manifest(folder, written)
