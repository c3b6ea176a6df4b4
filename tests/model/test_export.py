import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlrt.model.load import export, load_policy


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
