"""A teacher that cannot read the policy's token ids is refused before any weights load."""

import json
import shutil
from pathlib import Path

import pytest
from tests.paths import ROOT, TINY

from rlrt.config.assembly import build_run
from rlrt.config.compose import compose
from rlrt.errors import UserError

SMALL = ["model=tiny", "engine=hf", "logger=none", "credit=sdpo", "reward.workers=1"]


def refusal(folder: Path, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        build_run(compose([*SMALL, *settings]), folder / "run", 0)
    assert not (folder / "run").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of the tiny policy without weights: whoever loads them fails."""
    folder = tmp_path / "teacher"
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def test_a_teacher_that_is_nowhere(tmp_path: Path) -> None:
    said = refusal(tmp_path, "teacher=separate", f"teacher.path={tmp_path}/nothing")
    assert said.startswith(f"teacher.path is {tmp_path}/nothing")


def test_another_tokenizer(tmp_path: Path, other: Path) -> None:
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refusal(tmp_path, "teacher=separate", f"teacher.path={other}")
    assert "whose tokenizer differs from the policy's" in said


def test_logits_of_another_width(tmp_path: Path, other: Path) -> None:
    config = json.loads((other / "config.json").read_text())
    width = config["vocab_size"]
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": width + 64}))
    said = refusal(tmp_path, "teacher=separate", f"teacher.path={other}")
    assert f"whose output has {width + 64} entries and the policy's {width}" in said


def test_a_teacher_without_weights(tmp_path: Path, other: Path) -> None:
    said = refusal(tmp_path, "teacher=separate", f"teacher.path={other}")
    assert "it holds no *.safetensors" in said


def test_more_tokens_than_the_vocabulary_has(tmp_path: Path) -> None:
    width = json.loads((ROOT / "models/tiny/config.json").read_text())["vocab_size"]
    said = refusal(tmp_path, f"credit.top_k={width + 1}")
    assert said == (
        f"credit.top_k is {width + 1}, it must be null or at most {width}, the model's vocabulary"
    )


def test_a_context_that_no_problem_has(tmp_path: Path) -> None:
    """The column is there, in the settings and in the file, and every row left it empty."""
    rows = [
        {"id": str(n), "problem": f"Compute {n} + 1.", "answer": str(n + 1), "why": ""}
        for n in range(40)
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = ["data=jsonl", f"data.path={path}", "data.feedback_column=why", "context=feedback"]
    assert "feedback" in refusal(tmp_path, *data)
