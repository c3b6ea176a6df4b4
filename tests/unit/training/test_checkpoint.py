"""Which checkpoints stay, and which one is offered: files, and folders of shards."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.distributed.checkpoint.api import CheckpointException

from rlrt import distributed
from rlrt.config import resume
from rlrt.config.compose import compose
from rlrt.errors import RunStoppedError, UserError
from rlrt.files import put_in_place, recover
from rlrt.training.checkpoint import (
    Checkpoints,
    find_checkpoint,
    is_whole,
    link,
    plain_errors,
    run_folder,
)
from rlrt.training.metrics import StepTable


class FakeTrainer(SimpleNamespace):
    """As much of a trainer as saving takes; the checkpoint holds its step alone."""

    def __init__(self, current_epoch: int, sharded: bool) -> None:
        super().__init__(
            current_epoch=current_epoch,
            sharded=sharded,
            max_epochs=9,
            optimizers=[],
            strategy=SimpleNamespace(barrier=lambda: None),
        )

    def save_checkpoint(self, path: Path) -> None:
        state = {"rollout_steps": self.current_epoch + 1}
        path.parent.mkdir(exist_ok=True)
        if not self.sharded:
            torch.save(state, path)
            return
        path.mkdir()
        torch.save(state, path / "meta.pt")
        for name in (".metadata", "__0_0.distcp"):
            (path / name).write_bytes(bytes(range(100)) + name.encode())


@pytest.fixture(params=["file", "folder"])
def sharded(request: pytest.FixtureRequest) -> bool:
    """Whether a checkpoint is a folder."""
    return bool(request.param == "folder")


def save(checkpoints: Checkpoints, sharded: bool, *steps: int) -> None:
    for step in steps:
        trainer: Any = FakeTrainer(step - 1, sharded)
        checkpoints.on_train_epoch_end(trainer, torch.nn.Module())  # type: ignore[arg-type]


def step_of(path: Path) -> int:
    """The step that a checkpoint holds."""
    state = torch.load(path / "meta.pt" if path.is_dir() else path, weights_only=True)
    return int(state["rollout_steps"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", StepTable(tmp_path / "evaluation.csv", 0), "avg@8")


def test_the_newest_stay_and_last_is_one_of_them(checkpoints: Checkpoints, sharded: bool) -> None:
    save(checkpoints, sharded, 1, 2, 3, 4)
    assert names(checkpoints.folder) == ["last.ckpt", "step-000003.ckpt", "step-000004.ckpt"]
    last = checkpoints.folder / "last.ckpt"
    newest = checkpoints.folder / "step-000004.ckpt"
    files = [path.name for path in last.iterdir()] if sharded else [""]
    assert all((last / name).samefile(newest / name) for name in files)
    assert files


def test_a_run_resumed_further_back_replaces_what_came_after(
    checkpoints: Checkpoints, sharded: bool
) -> None:
    save(checkpoints, sharded, 4, 5, 3)
    assert names(checkpoints.folder) == ["last.ckpt", "step-000003.ckpt"]


def test_saving_every_few_steps_and_at_the_end(tmp_path: Path) -> None:
    sparse = Checkpoints(tmp_path / "c", StepTable(tmp_path / "e.csv", 0), "avg@8", 4, 5)
    save(sparse, False, *range(1, 10))
    assert names(sparse.folder) == [
        "last.ckpt",
        "step-000004.ckpt",
        "step-000008.ckpt",
        "step-000009.ckpt",
    ]


def test_the_best_is_what_was_evaluated_best_and_never_the_start(
    checkpoints: Checkpoints, sharded: bool
) -> None:
    best = checkpoints.folder / "best.ckpt"
    for step, score in [(0, 0.9), (1, 0.5), (2, 0.7), (3, 0.6)]:
        if step:
            save(checkpoints, sharded, step)
        checkpoints.evaluations.append({"step": step, "avg@8": score})
        checkpoints.link_best()
    assert step_of(best) == 2
    assert is_whole(best)


def test_a_damaged_link_offers_the_one_before_it(checkpoints: Checkpoints, sharded: bool) -> None:
    save(checkpoints, sharded, 1, 2)
    last = checkpoints.folder / "last.ckpt"
    with (last / "__0_0.distcp" if sharded else last).open("r+b") as file:
        file.truncate(50)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged; go on from .*step-000001\.ckpt"):
        find_checkpoint(last)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("[1]"),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "__0_0.distcp").unlink(),
        lambda folder: (folder / "__0_0.distcp").write_bytes(bytes(112)),  # of the same size
        lambda folder: (folder / "__1_0.distcp").write_bytes(b"one too many"),
    ],
)
def test_a_folder_that_is_not_what_was_written_is_damaged(
    checkpoints: Checkpoints, damage: Any
) -> None:
    save(checkpoints, True, 1, 2)
    newest = checkpoints.folder / "step-000002.ckpt"
    assert find_checkpoint(checkpoints.folder.parent) == newest
    damage(newest)
    for named in (newest, checkpoints.folder.parent):
        with pytest.raises(UserError, match=r"go on from .*=.*step-000001\.ckpt$"):
            find_checkpoint(named)


def test_one_rank_verifies_what_all_resume_from(
    checkpoints: Checkpoints, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, sharded, 1, 2)
    newest = checkpoints.folder / "step-000002.ckpt"
    damaged = newest / "__0_0.distcp" if sharded else newest
    damaged.write_bytes(damaged.read_bytes()[:50])
    run: Any = checkpoints.folder.parent
    assert find_checkpoint(run, verify=False) == newest
    none: Any = None
    checkpoints.setup(none, none, "fit")  # nothing is left to verify
    checkpoints.unverified = run
    with pytest.raises(UserError, match=r"is damaged; go on from .*step-000001\.ckpt"):
        checkpoints.setup(none, none, "fit")
    # another rank reads nothing, and says what rank 0 has told it
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "all_gather_object", lambda told: ["of rank 0", told])
    (run / "checkpoints").rename(run / "away")
    with pytest.raises(UserError, match=r"^of rank 0$"):
        checkpoints.setup(none, none, "fit")


@pytest.mark.parametrize(
    ("environment", "verified"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, False),  # the first one did
        ({"RANK": "0", "WORLD_SIZE": "2"}, False),  # once they have met
    ],
)
def test_a_checkpoint_is_verified_at_once_where_nobody_waits(
    checkpoints: Checkpoints,
    sharded: bool,
    environment: dict[str, str],
    verified: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(checkpoints, sharded, 1)
    if sharded:
        monkeypatch.setattr(resume, "completed_steps", step_of)  # its layout is none
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = checkpoints.folder.parent
    config = compose([f"resume={run}"])
    OmegaConf.save(config, run / "config.yaml")
    found = resume.find_resume_point(config, [f"resume={run}"], run)
    assert (found.verified, found.first_step) == (verified, 1)


def test_what_a_killed_save_left_counts_as_nothing_and_goes(
    checkpoints: Checkpoints, sharded: bool
) -> None:
    save(checkpoints, sharded, 1)
    for name in (".step-000002.ckpt.partial", ".step-000000.ckpt.before"):
        (checkpoints.folder / name).mkdir()
        (checkpoints.folder / name / "__0_0.distcp").touch()
    first = checkpoints.folder / "step-000001.ckpt"
    assert find_checkpoint(checkpoints.folder.parent) == first
    save(checkpoints, sharded, 2)
    assert names(checkpoints.folder) == ["last.ckpt", "step-000001.ckpt", "step-000002.ckpt"]


def test_a_run_may_change_between_files_and_folders(checkpoints: Checkpoints) -> None:
    for sharded in (False, True, False):
        save(checkpoints, sharded, 3)  # resumed before it, each time
        assert names(checkpoints.folder) == ["last.ckpt", "step-000003.ckpt"]
        assert find_checkpoint(checkpoints.folder / "last.ckpt") is not None
        assert (checkpoints.folder / "last.ckpt").is_dir() == sharded


def test_a_folder_put_aside_by_a_process_that_died_comes_back(tmp_path: Path) -> None:
    one, two, best = (tmp_path / name for name in ("one", "two", "best"))
    for folder in (one, two):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    link(one, best)
    best.rename(tmp_path / ".best.before")  # as far as put_in_place comes before its second rename
    recover(best)
    assert (best / "name").read_text() == "one"
    put_in_place(two, best)
    recover(best)
    assert (best / "name").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "one"]


def test_the_run_folder_of_what_resume_names(checkpoints: Checkpoints, sharded: bool) -> None:
    save(checkpoints, sharded, 1)
    run = checkpoints.folder.parent
    named = [run, checkpoints.folder / "last.ckpt", checkpoints.folder / "step-000001.ckpt"]
    assert [run_folder(path) for path in named] == [run, run, run]


@pytest.mark.parametrize(("setting", "value"), [("every_n_steps", 0), ("keep", 1)])
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"checkpoint\.{setting} is {value}"):
        Checkpoints(tmp_path, StepTable(tmp_path / "e.csv", 0), "avg@8", **{setting: value})


def test_what_pytorchs_writer_hides_is_said(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.ckpt"
    hidden = "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"
    with (
        pytest.raises(RunStoppedError, match="could not be written: the disk is full"),
        plain_errors(path),
    ):
        raise RuntimeError(hidden)
    full = OSError(errno.ENOSPC, "No space left on device")
    behind = RuntimeError(hidden)
    behind.__context__ = full
    with pytest.raises(OSError, match="No space left"), plain_errors(path):
        raise behind
    with pytest.raises(OSError, match="No space left"), plain_errors(path):
        raise CheckpointException("of two", {1: (full, None)})
    with pytest.raises(RuntimeError, match="something else"), plain_errors(path):
        raise RuntimeError("something else")
