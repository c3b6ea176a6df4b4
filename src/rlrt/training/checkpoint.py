"""Checkpoints: written atomically, verified before they are loaded, free of pickled objects."""

import os
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from rlrt.errors import UserError
from rlrt.training.files import StepTable, write_atomically

PATTERN = "step-*.ckpt"  # no "=": Hydra takes resume=<path> from the command line


class DamagedCheckpointError(UserError):
    """A checkpoint cannot be trusted; the message names one that can."""


class AtomicCheckpointIO(CheckpointIO):
    """Saves through a partial file and a rename; loads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        def write(partial: Path) -> None:
            with partial.open("wb") as file:  # whose OSError tells what PyTorch's own writer hides
                torch.save(checkpoint, file)

        write_atomically(Path(path), write)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is what was written, by the checksums of its zip records."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False


def completed_steps(path: Path) -> int:
    """Rollout steps that a whole checkpoint has behind it."""
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["rollout_steps"])


def find_checkpoint(resume: Path) -> Path | None:
    """The checkpoint to go on from: the file itself, or the newest of a run folder, verified.

    None for a run folder that has none yet. DamagedCheckpointError where it is damaged, naming the one
    before it; UserError where ``resume`` does not exist.
    """
    if not resume.exists():
        raise UserError(f"resume is {resume}, and no such run folder or checkpoint exists")
    folder = resume / "checkpoints" if resume.is_dir() else resume.parent
    saved = sorted(folder.glob(PATTERN), reverse=True)
    if resume.is_dir():
        if not saved:
            return None
        chosen = saved[0]
    else:
        chosen = resume
    if is_whole(chosen):
        return chosen
    same = [path for path in saved if path.samefile(chosen)]  # last.ckpt and best.ckpt are links
    name = same[0].name if same else chosen.name
    others = [path for path in saved if path.name < name and is_whole(path)]
    offer = (
        f"go on from the one before it with resume={others[0]}" if others else "no other is whole"
    )
    raise DamagedCheckpointError(f"the checkpoint {chosen} is damaged; {offer}")


class Checkpoints(Checkpoint):
    """Saves after every ``every_n_steps`` rollout steps; keeps the newest ``keep`` and the best.

    ``last.ckpt`` and ``best.ckpt`` are hard links. The best is the one whose weights ``evaluations``
    ranks highest by ``score``, a column of evaluation.csv; the start is not a candidate.
    """

    def __init__(
        self,
        folder: Path,
        evaluations: StepTable,
        score: str,
        every_n_steps: int = 1,
        keep: int = 2,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps is {every_n_steps}, it must be at least 1")
        if keep < 2:
            raise ValueError(
                f"checkpoint.keep is {keep}, it must be at least 2: one may be damaged"
            )
        self.folder = folder
        self.evaluations = evaluations
        self.score = score
        self.every_n_steps = every_n_steps
        self.keep = keep

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
        path = self._path(done)
        trainer.save_checkpoint(path)
        _link(path, self.folder / "last.ckpt")
        saved = sorted(self.folder.glob(PATTERN))
        # later ones were left by a run that this one, resumed before them, takes the place of
        newest = [other for other in saved if other.name <= path.name][-self.keep :]
        for other in saved:
            if other not in newest:
                other.unlink()

    def link_best(self) -> None:
        """Make ``best.ckpt`` the checkpoint that was evaluated last, if none was better."""
        rows = [row for row in self.evaluations.rows if int(row["step"]) > 0]
        if not rows or float(rows[-1][self.score]) < max(float(row[self.score]) for row in rows):
            return
        path = self._path(int(rows[-1]["step"]))
        if path.exists():
            _link(path, self.folder / "best.ckpt")

    def _path(self, steps: int) -> Path:
        return self.folder / f"step-{steps:06d}.ckpt"


def _link(target: Path, name: Path) -> None:
    """Point ``name`` at the file of ``target``; at every moment the name exists or never has."""
    partial = name.with_name(f".{name.name}.partial")
    partial.unlink(missing_ok=True)
    os.link(target, partial)
    partial.replace(name)
