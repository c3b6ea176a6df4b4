import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlrt.model.export import ABOUT, export, read_origin
from rlrt.model.load import load_policy


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
