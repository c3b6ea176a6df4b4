"""A model of one's own in place of a preset."""

from pathlib import Path

import pytest

from rlrt.config.compose import CONFIGS, compose
from rlrt.config.own_model import SCALE, expand_own_model, kind_of
from rlrt.errors import UserError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen2.5-0.5B", "base"),
        ("Qwen2.5-0.5B-Instruct", "instruct"),
        ("Qwen3-4B-Base", "base"),
        ("Qwen3-8B", "thinking"),
        ("Qwen3-4B-Instruct-2507", "instruct"),
        ("Qwen3-4B-Thinking-2507", "thinking"),
        ("DeepSeek-R1-Distill-Qwen-7B", "thinking"),
        ("gemma-3-1b-it", "instruct"),
        ("gemma-3-1b-pt", "base"),
        ("OLMo-2-0425-1B", "base"),
        ("Llama-3.2-1B-Instruct", "instruct"),
        ("my model", "base"),
    ],
)
def test_what_a_name_says(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_name_on_the_hub_with_a_revision() -> None:
    model = compose(["model=Qwen/Qwen2.5-0.5B-Instruct@v1.0", "data=gsm8k"]).model
    assert (model.path, model.revision) == ("Qwen/Qwen2.5-0.5B-Instruct", "v1.0")
    assert (model.name, model.kind) == ("Qwen2.5-0.5B-Instruct", "instruct")
    assert model.shape is None
    assert model.enable_thinking is None


def test_settings_beside_it_stay_as_given() -> None:
    words = ["model=Qwen/Qwen3-8B", "model.kind=base", "model.name=mine", "seed=1"]
    expanded, remark = expand_own_model(words, CONFIGS)
    assert expanded[0] == f"model={SCALE}"
    assert expanded[-3:] == words[1:]
    assert not remark
    assert compose(words).model.kind == "base"
    _, remark = expand_own_model(words[:1], CONFIGS)
    assert remark.startswith("Qwen3-8B is taken for a model of kind thinking, by its name")


def test_a_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "folder, of mine"
    folder.mkdir()
    model = compose([f'model="{folder}"']).model
    assert Path(model.path) == folder.resolve()
    assert model.name == "folder__of_mine"


def test_presets_and_others_are_left_alone() -> None:
    for words in (["model=tiny"], ["credit=grpo"], ["model=qwen3_8b", "model.path=x/y"]):
        assert expand_own_model(words, CONFIGS) == (words, "")
    for word in ("tinyy", "no/such/folder", "/no/such/folder"):
        with pytest.raises(
            UserError, match=rf"^model is {word}, it must be one of qwen3_4b_base.*a n"
        ):
            compose([f"model={word}"])
