"""The policy as Hugging Face folders: after the steps that are asked for, and at the end."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import lightning as L
import torch
from transformers import PreTrainedTokenizerBase

from rlrt import distributed
from rlrt.files import remove
from rlrt.model.export import Origin, export, read_origin
from rlrt.training.module import PolicyModule

FINAL = "export"
BY_STEP = "exports"


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
    every = [*sorted((run / BY_STEP).glob("step-*")), run / FINAL]
    return (path for path in every if (path / "config.json").is_file())
