"""Which exports are there after any course of a run. The policy is real, its steps are told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from rlrt.model.export import ABOUT, read_origin
from rlrt.model.policy import Policy
from rlrt.training.exports import Exports, exports_by_step


@pytest.fixture
def module(random_policy: Any) -> Any:
    return SimpleNamespace(policy=Policy(random_policy(torch.float32)))


def course(exports: Exports, module: Any, first: int, last: int, killed: bool = False) -> None:
    """Steps ``first`` to ``last`` of a run, which ends there, or is killed before it can say so."""
    for step in range(first, last):
        trainer: Any = SimpleNamespace(current_epoch=step)
        exports.on_train_epoch_start(trainer, module)
        exports.on_train_epoch_end(trainer, module)
    if not killed:
        exports.finish(module, last)


def names(run: Path) -> list[str]:
    return sorted(str(p.relative_to(run)) for p in (*run.glob("exports/*"), *run.glob("export")))


@pytest.mark.parametrize("killed_after", [None, 1, 2, 4, 5])
def test_a_run_killed_and_resumed_has_the_same_set(
    module: Any, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, killed_after: int | None
) -> None:
    exports = Exports(tmp_path, tokenizer, torch.float32, 2, [3])
    if killed_after is not None:
        course(exports, module, 0, killed_after, killed=True)
    resumed = 0 if killed_after is None else killed_after - 1  # from the checkpoint before
    course(exports, module, resumed, 5)
    steps = [0, 2, 3, 4]
    assert names(tmp_path) == ["export", *(f"exports/step-{step:06d}" for step in steps)]
    found = exports_by_step(tmp_path)
    assert sorted(found) == [*steps, 5]
    assert found[5] == tmp_path / "export"
    assert read_origin(found[3]).run == "/".join(tmp_path.parts[-2:])


def test_a_run_resumed_further_back_takes_the_place_of_what_came_after(
    module: Any, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    exports = Exports(tmp_path, tokenizer, torch.float32, 2)
    course(exports, module, 0, 6)
    course(exports, module, 2, 3, killed=True)
    assert sorted(exports_by_step(tmp_path)) == [0, 2]
    course(exports, module, 2, 5, killed=True)
    assert sorted(exports_by_step(tmp_path)) == [0, 2, 4]
    (tmp_path / "exports" / "step-000004" / ABOUT).unlink()  # not of this run's making: it stays
    course(exports, module, 2, 3, killed=True)
    assert names(tmp_path) == [f"exports/step-{step:06d}" for step in (0, 2, 4)]


def test_without_a_setting_the_last_weights_alone(
    module: Any, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    course(Exports(tmp_path, tokenizer, torch.bfloat16), module, 0, 2)
    assert names(tmp_path) == ["export"]
    assert {p.dtype for p in module.policy.parameters()} == {torch.float32}  # the live policy
