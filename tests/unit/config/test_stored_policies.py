"""Where a run's policies are, on folders with a configuration alone and on copies of a real run."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from omegaconf import OmegaConf

from rlrt.config.compose import compose
from rlrt.config.stored_policies import USED, find_policy, policies_by_step, read_config
from rlrt.errors import UserError
from rlrt.training.checkpoint import EXTRA, completed_steps, sums, write_manifest
from rlrt.training.exports import ABOUT


def run_with(folder: Path, random_init_seed: int | None, *checkpoints: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in checkpoints:
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    config = compose(["credit=rlrt", "model=tiny"])
    config.model.path, config.model.random_init_seed = "start", random_init_seed
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def test_the_start_and_every_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path, None, "step-000020", "step-000005", "best", "last", "step-1000000")
    found = policies_by_step(run)
    assert list(found) == [0, 5, 20, 1_000_000]
    assert found[0] == "start"
    assert found[20] == str(run / "checkpoints" / "step-000020.ckpt")


def test_random_weights_are_nowhere_to_be_found(tmp_path: Path) -> None:
    assert list(policies_by_step(run_with(tmp_path / "a", 1, "step-000005"))) == [5]
    assert policies_by_step(run_with(tmp_path / "b", 1)) == {}


def test_no_run_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        policies_by_step(tmp_path)


@pytest.mark.parametrize("name", [*USED, "model", "prompts"])
def test_a_run_of_an_older_format_lacks_what_is_named(tmp_path: Path, name: str) -> None:
    run = run_with(tmp_path, None)
    config = OmegaConf.load(run / "config.yaml")
    group, _, last = name.rpartition(".")
    del (OmegaConf.select(config, group) if group else config)[last]
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(UserError, match=rf"config\.yaml is of another format: it lacks {name}"):
        read_config(run)


def test_a_group_that_is_no_group_is_one_sentence(tmp_path: Path) -> None:
    run = run_with(tmp_path, None)
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, "model", 3, merge=False)
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(UserError, match=r"it lacks model\.path, model\.random_init_seed$"):
        find_policy(str(run))


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """A run folder that a test may change."""
    ignored = shutil.ignore_patterns("rollouts")
    return shutil.copytree(run_folder, tmp_path / "logs" / "run", ignore=ignored)


def step_path(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}.ckpt"


def test_the_policy_that_most_steps_have_made_is_that_of_the_run(copy: Path) -> None:
    """Whatever the dates of the files: a folder may have been copied without them."""
    for times in ([1, 2], [2, 1]):
        os.utime(copy / "export" / "config.json", (times[0], times[0]))
        os.utime(step_path(copy, 3), (times[1], times[1]))
        stored = find_policy(str(copy))
        assert (stored.checkpoint, stored.folder) == (None, str(copy / "export"))
    shutil.copy(step_path(copy, 3), step_path(copy, 4))  # the run went on
    assert find_policy(str(copy)).checkpoint == step_path(copy, 4)
    say_step(copy / "export", 4)  # and ended again
    assert find_policy(str(copy)).checkpoint is None


def test_without_the_last_export_the_newest_of_all_others_counts(copy: Path) -> None:
    shutil.rmtree(copy / "export")
    assert find_policy(str(copy)).checkpoint == step_path(copy, 3)
    shutil.rmtree(copy / "checkpoints")
    assert find_policy(str(copy)).folder == str(copy / "exports" / "step-000002")
    shutil.rmtree(copy / "exports")
    with pytest.raises(UserError, match="without any weights yet: no checkpoint, no export"):
        find_policy(str(copy))


def test_exports_are_policies_of_the_run_beside_its_checkpoints(copy: Path) -> None:
    step_path(copy, 2).unlink()
    found = policies_by_step(copy)
    assert list(found) == [0, 1, 2, 3]
    assert found[2] == str(copy / "exports" / "step-000002")
    assert found[3] == str(copy / "export")
    stored = find_policy(found[2])
    assert stored.name == "logs/run/exports/step-000002"
    assert stored.config == read_config(copy)
    assert stored.load(torch.float32).dtype == torch.float32


@pytest.mark.parametrize("export", ["export", "exports/step-000002"])
def test_an_export_of_a_run_that_does_not_say_its_step_is_refused(copy: Path, export: str) -> None:
    elsewhere = shutil.copytree(copy / export, copy.parent / "model")
    (copy / export / ABOUT).unlink()
    for word in (copy, copy / export):
        with pytest.raises(
            UserError, match=f"{export} does not say how many rollout steps made it"
        ):
            find_policy(str(word))
    with pytest.raises(UserError, match="does not say"):
        policies_by_step(copy)
    (elsewhere / ABOUT).unlink()
    assert find_policy(str(elsewhere)).config is None  # a plain model folder says nothing of steps


def say_step(export: Path, step: int) -> None:
    (export / ABOUT).write_text(json.dumps({"rollout_steps": step}))


def sharded(path: Path) -> None:
    """The checkpoint again as a folder, as several ranks write it."""
    whole = torch.load(path, weights_only=True)
    path.unlink()
    state = {name: whole["state_dict"][name] for name in whole["state_dict"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no ranks are there
        dcp.save({"state_dict": state}, checkpoint_id=path, no_dist=True)
    torch.save({"rollout_steps": whole["rollout_steps"]}, path / EXTRA)
    write_manifest(path, sums(path.iterdir()))


def test_a_checkpoint_of_several_ranks_is_the_same_policy(copy: Path) -> None:
    path = step_path(copy, 3)
    expected = find_policy(str(path)).load(torch.float32).state_dict()
    sharded(path)
    assert path.is_dir()
    assert completed_steps(path) == 3
    stored = find_policy(str(path))
    torch.testing.assert_close(stored.load(torch.float32).state_dict(), expected, rtol=0, atol=0)
    digest = stored.digest()
    (path / "below").mkdir()  # as a file browser leaves
    assert stored.digest() == digest
    (path / EXTRA).write_bytes(b"other")
    assert stored.digest() != digest


def test_of_an_earlier_export_and_a_folder_the_folder_counts(copy: Path) -> None:
    sharded(step_path(copy, 3))
    say_step(copy / "export", 2)
    assert find_policy(str(copy)).checkpoint == step_path(copy, 3)


@pytest.mark.parametrize(
    "state",
    [5, None, {5: torch.ones(1)}, [1, 2], "absent"],
    ids=["5", "null", "keys", "list", "no"],
)
def test_a_checkpoint_of_something_else_is_one_sentence(copy: Path, state: Any) -> None:
    content = {"rollout_steps": 3} | ({} if state == "absent" else {"state_dict": state})
    torch.save(content, step_path(copy, 3))
    with pytest.raises(UserError, match=r"step-000003\.ckpt is no checkpoint of a run \("):
        find_policy(str(step_path(copy, 3))).load(torch.float32)


@pytest.mark.parametrize("change", ["shape", "name", "number"])
def test_weights_of_another_model_are_one_sentence(copy: Path, change: str) -> None:
    whole = torch.load(step_path(copy, 3), weights_only=True)
    state = whole["state_dict"]
    first = next(name for name in state if name.startswith("policy."))
    if change == "name":
        state[f"{first}.more"] = state.pop(first)
    else:
        state[first] = torch.ones(2, 3) if change == "shape" else 3
    torch.save(whole, step_path(copy, 3))
    with pytest.raises(UserError, match=r"step-000003\.ckpt do not fit the model at .*model\.path"):
        find_policy(str(step_path(copy, 3))).load(torch.float32)
