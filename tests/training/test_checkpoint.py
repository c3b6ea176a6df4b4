"""Which checkpoints stay, and which one is offered."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlrt.errors import UserError
from rlrt.training.checkpoint import Checkpoints, find_checkpoint
from rlrt.training.files import StepTable


class FakeTrainer(SimpleNamespace):
    """As much of a trainer as saving takes; the checkpoint holds its step alone."""

    def save_checkpoint(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        torch.save({"rollout_steps": self.current_epoch + 1}, path)


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        trainer: Any = FakeTrainer(current_epoch=step - 1, max_epochs=9)
        checkpoints.on_train_epoch_end(trainer, torch.nn.Module())  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", StepTable(tmp_path / "evaluation.csv", 0), "avg@8")


def test_the_newest_stay_and_last_is_one_of_them(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1, 2, 3, 4)
    assert names(checkpoints.folder) == ["last.ckpt", "step-000003.ckpt", "step-000004.ckpt"]
    assert (checkpoints.folder / "last.ckpt").samefile(checkpoints.folder / "step-000004.ckpt")


def test_a_run_resumed_further_back_replaces_what_came_after(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4, 5, 3)
    assert names(checkpoints.folder) == ["last.ckpt", "step-000003.ckpt"]


def test_saving_every_few_steps_and_at_the_end(tmp_path: Path) -> None:
    sparse = Checkpoints(tmp_path / "c", StepTable(tmp_path / "e.csv", 0), "avg@8", 4, 5)
    save(sparse, *range(1, 10))
    assert names(sparse.folder) == [
        "last.ckpt",
        "step-000004.ckpt",
        "step-000008.ckpt",
        "step-000009.ckpt",
    ]


def test_the_best_is_what_was_evaluated_best_and_never_the_start(checkpoints: Checkpoints) -> None:
    best = checkpoints.folder / "best.ckpt"
    for step, score in [(0, 0.9), (1, 0.5), (2, 0.7), (3, 0.6)]:
        if step:
            save(checkpoints, step)
        checkpoints.evaluations.append({"step": step, "avg@8": score})
        checkpoints.link_best()
    assert torch.load(best, weights_only=True) == {"rollout_steps": 2}


def test_a_damaged_link_offers_the_one_before_it(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1, 2)
    last = checkpoints.folder / "last.ckpt"
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size // 2)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged; go on from .*step-000001\.ckpt"):
        find_checkpoint(last)


@pytest.mark.parametrize(("setting", "value"), [("every_n_steps", 0), ("keep", 1)])
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"checkpoint\.{setting} is {value}"):
        Checkpoints(tmp_path, StepTable(tmp_path / "e.csv", 0), "avg@8", **{setting: value})
