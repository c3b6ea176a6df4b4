"""What an export holds, and which are there after any course of a run, whose steps are told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlrt.model.load import load_policy
from rlrt.model.policy import Policy
from rlrt.training.exports import ABOUT, Exports, export, exports_by_step, read_origin


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_holds_every_tensor_once_and_loads(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, dtype: torch.dtype
) -> None:
    before = {name: tensor.to(dtype) for name, tensor in tiny.state_dict().items()}
    export(tiny, tokenizer, tmp_path / "export", dtype)
    with safe_open(tmp_path / "export/model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # tied to the embedding  # noqa: SIM118
        assert {file.get_tensor(name).dtype for name in file.keys()} == {dtype}  # noqa: SIM118
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")
    loaded = load_policy(str(tmp_path / "export"), dtype)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    again = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.chat_template == tokenizer.chat_template


def test_an_earlier_export_is_replaced(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "stale.safetensors").write_text("old")
    export(tiny, tokenizer, folder, torch.float32)
    assert not (folder / "stale.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_weights_in_several_files_are_the_same_weights(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    export(tiny, tokenizer, whole, torch.bfloat16)
    export(tiny, tokenizer, parts, torch.bfloat16, file_bytes=300_000)
    assert len(list(parts.glob("model-*-of-*.safetensors"))) > 2
    expected = load_policy(str(whole), torch.bfloat16).state_dict()
    for name, tensor in load_policy(str(parts), torch.bfloat16).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_the_policy_that_is_exported_stays_as_it_is(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    settings = tiny.config.to_dict()
    export(tiny, tokenizer, tmp_path / "export", torch.bfloat16)
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == torch.float32
    assert tiny.config.to_dict() == settings


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "{}", '{"rollout_steps": -1}', '{"rollout_steps": "3"}']
)
def test_an_export_that_does_not_say_its_step_is_one_sentence(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / ABOUT).write_text(text)
    with pytest.raises(ValueError, match=r"does not say how many rollout steps .*rlrt\.json") as it:
        read_origin(tmp_path)
    assert "\n" not in str(it.value)
