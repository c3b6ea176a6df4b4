"""Checkpoints of real trainings, carried from one number of ranks to another."""

import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tests.e2e.tiny_training import main
from tests.processes import Entry, run_ranks

from rlrt.training.checkpoint import AtomicCheckpointIO, completed_steps, find_checkpoint, is_whole

PROGRAM = "tests/e2e/tiny_training.py"
STEPS = 4


def train(
    folder: Path,
    count: int,
    steps: int,
    how: str,
    *checkpoint: Path,
    status: int = 0,
    limits: dict[str, str] | None = None,
) -> str:
    """Train on ``count`` ranks, started by Lightning where they have ``limits``; what they printed."""
    words = [str(folder), str(count), str(steps), how, *map(str, checkpoint)]
    if count == 1:
        main(*words)
        return ""
    log = folder.with_name(f"{folder.name}_logs")
    if limits is None:
        run_ranks(count, PROGRAM, *words, log=log)
        return ""
    log.mkdir(exist_ok=True)
    ranks = Entry(log / "ranks.log", PROGRAM, *words, **limits)
    assert ranks.wait(100) == status, ranks.log.read_text()[-3000:]
    return ranks.log.read_text()


def step_path(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}.ckpt"


def loaded(path: Path) -> dict[str, Any]:
    """A whole checkpoint as a single process gets it."""
    assert is_whole(path)
    return AtomicCheckpointIO().load_checkpoint(path)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Every leaf by its full name."""
    if isinstance(state, dict):
        items: Any = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    else:
        return {name: state}
    return {key: leaf for k, value in items for key, leaf in flat(value, f"{name}.{k}").items()}


def require_same(found: Path, expected: Path, tolerance: float) -> None:
    """Weights, AdamW's state, scheduler, counters: the same names, the same values."""
    one, two = flat(loaded(found)), flat(loaded(expected))
    assert one.keys() == two.keys()
    assert any(name.endswith("exp_avg_sq") for name in one)
    for name, value in two.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(one[name], value, rtol=tolerance, atol=tolerance, msg=name)
        else:
            assert one[name] == value, name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one rank, never interrupted."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, 1, STEPS, "whole")
    return folder


@pytest.fixture(scope="module")
def runs_of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on two ranks that stopped half-way, by how they wrote their checkpoints."""
    runs = {how: tmp_path_factory.mktemp(how) for how in ("whole", "sharded")}
    for how, folder in runs.items():
        train(folder, 2, STEPS // 2, how)
    return runs


@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_two_ranks_save_what_one_would(alone: Path, runs_of_two: dict[str, Path], how: str) -> None:
    """To the bit: both ranks have the same gradient, and half of twice a number is that number."""
    path = step_path(runs_of_two[how], STEPS // 2)
    assert path.is_dir() == (how == "sharded")
    assert completed_steps(path) == STEPS // 2
    require_same(path, step_path(alone, STEPS // 2), tolerance=0)


@pytest.mark.parametrize(
    ("before", "how", "ranks", "then"),
    [
        (2, "whole", 1, "whole"),
        (2, "sharded", 1, "whole"),
        (2, "sharded", 3, "sharded"),
        (1, "whole", 2, "whole"),
    ],
)
def test_a_run_goes_on_with_another_number_of_ranks(
    tmp_path: Path,
    alone: Path,
    runs_of_two: dict[str, Path],
    before: int,
    how: str,
    ranks: int,
    then: str,
) -> None:
    """It ends like the one never interrupted; a mean over three ranks rounds in float32."""
    source = step_path(alone if before == 1 else runs_of_two[how], STEPS // 2)
    train(tmp_path, ranks, STEPS, then, source)
    tolerance = 1e-5 if ranks == 3 else 0
    require_same(step_path(tmp_path, STEPS), step_path(alone, STEPS), tolerance)


def test_a_shard_that_finds_the_disk_full_leaves_nothing_that_counts(
    tmp_path: Path, runs_of_two: dict[str, Path]
) -> None:
    """Every rank stops with the system's own word, and the run goes on from before."""
    shutil.copytree(runs_of_two["sharded"], tmp_path, symlinks=True, dirs_exist_ok=True)
    done, more = step_path(tmp_path, STEPS // 2), STEPS // 2 + 1
    names = {path.name for path in done.parent.iterdir()}
    said = train(tmp_path, 2, more, "sharded", done, status=1, limits={"RANK_1_FILE_BYTES": "9999"})
    assert "OSError: [Errno 27] File too large" in said
    assert find_checkpoint(tmp_path) == done
    train(tmp_path, 2, more, "sharded", done)
    assert {path.name for path in done.parent.iterdir()} == {*names, step_path(tmp_path, more).name}
    assert names == {"last.ckpt", *(f"step-00000{step}.ckpt" for step in range(1, more))}


def test_a_run_whose_rank_was_killed_goes_on(tmp_path: Path, alone: Path) -> None:
    """Lightning's launcher, which watches its children too, does not come first."""
    said = train(tmp_path, 2, STEPS, "sharded", status=3, limits={"RANK_1_DIES_AT": "2"})
    assert said.count("error: ") == 1
    assert f"error: rank 1 of 2 has died; the others stop; go on with resume={tmp_path}" in said
    assert "Traceback" not in said
    found = find_checkpoint(tmp_path)
    assert found == step_path(tmp_path, 2)
    train(tmp_path, 1, STEPS, "whole", found)
    require_same(step_path(tmp_path, STEPS), step_path(alone, STEPS), tolerance=0)


class Runs:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def in_the_layout(folder: Path, value: Any) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(value))


def in_a_value(folder: Path, value: Any) -> None:
    """As PyTorch writes what is no tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no ranks are there
        dcp.save({"state_dict": {"x": value}}, checkpoint_id=folder, no_dist=True)


def in_the_extra(folder: Path, value: Any) -> None:
    torch.save({"rollout_steps": value}, folder / "meta.pt")


@pytest.mark.parametrize("poison", [in_the_layout, in_a_value, in_the_extra])
def test_no_part_of_a_folder_is_run_when_it_is_read(
    tmp_path: Path, poison: Callable[[Path, Any], None]
) -> None:
    folder, marker = tmp_path / "step-000001.ckpt", tmp_path / "it ran"
    in_a_value(folder, 1.5)
    in_the_extra(folder, 1)
    assert completed_steps(folder) == 1
    assert AtomicCheckpointIO().load_checkpoint(folder)["state_dict"] == {"x": 1.5}
    poison(folder, Runs(marker))
    for read in (completed_steps, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(pickle.UnpicklingError):
            read(folder)
    assert not marker.exists()
