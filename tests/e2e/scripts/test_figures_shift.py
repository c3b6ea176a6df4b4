"""scripts/figures/shift.py on a real run of the tiny policy, with the real hf engine."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.e2e.scripts.commands import load_script, read_csv
from tests.paths import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

from rlrt.config.compose import compose
from rlrt.errors import UserError

TINY = ROOT / "models" / "tiny"
SIZES = ("--problems", "6", "--hard", "3", "--samples", "2")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/shift")


def test_three_panels_of_a_run_against_its_base(
    script: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "shift"
    script.main([str(run_folder), "--base", "tiny", "--out", str(out), *SIZES])
    rows = read_csv(out.with_suffix(".csv"))
    assert {row["panel"] for row in rows} == {"a", "b", "c"}
    assert {row["policy"] for row in rows} == {"rlrt"}
    above = [float(row["value"]) for row in rows if row["panel"] == "a"]
    assert above == sorted(above, reverse=True)
    assert above[0] > 0  # three steps move it
    assert "3 hard problems of 6; tiny is the base" in capsys.readouterr().out
    assert out.with_suffix(".svg").read_text().startswith("<?xml")

    again = tmp_path / "again"  # the base is by default what the run began with
    script.main([str(run_folder), "--out", str(again), *SIZES])
    assert again.with_suffix(".csv").read_bytes() == out.with_suffix(".csv").read_bytes()


def test_a_run_against_itself_has_not_moved(
    script: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shift"
    script.main([str(run_folder), "--base", str(run_folder), "--out", str(out), *SIZES])
    rows = read_csv(out.with_suffix(".csv"))
    assert {float(row["value"]) for row in rows if row["panel"] == "a"} == {0.0}
    assert {row["value"] for row in rows if row["panel"] != "a"} <= {""}
    assert "no position has moved" in capsys.readouterr().out


@pytest.fixture
def refused(script: ModuleType, tmp_path: Path):  # type: ignore[no-untyped-def]
    """What the command says of a call that it refuses; nothing is written."""

    def said(*arguments: str | Path) -> str:
        with pytest.raises(UserError) as raised:
            script.main([*SIZES, *map(str, arguments), "--out", str(tmp_path / "shift")])
        assert not list(tmp_path.glob("shift*"))
        return str(raised.value)

    return said


def test_a_base_with_another_tokenizer_is_one_sentence(
    refused,  # type: ignore[no-untyped-def]
    run_folder: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    words = json.loads((other / "tokenizer.json").read_text())
    ids = words["model"]["vocab"]
    ids["7"], ids["8"] = ids["8"], ids["7"]
    (other / "tokenizer.json").write_text(json.dumps(words))
    assert "is not that of the base" in refused(run_folder, "--base", other)


def test_a_base_of_another_shape_is_one_sentence(
    refused,  # type: ignore[no-untyped-def]
    run_folder: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    shape = AutoConfig.from_pretrained(TINY)
    shape.intermediate_size = 64
    AutoModelForCausalLM.from_config(shape, dtype=torch.float32).save_pretrained(other)
    assert "another shape" in refused(run_folder, "--base", other)


def test_another_seed_of_the_data_may_hold_out_the_same_problems(
    script: ModuleType, tmp_path: Path
) -> None:
    """As where they are a file of their own; a part of it that the seed chooses is not the same."""
    for name, numbers in (("train", range(50)), ("held_out", range(50, 60))):
        lines = [json.dumps({"problem": f"Compute {n}.", "answer": str(n)}) for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    paths = (
        f"data.path={tmp_path / 'train.jsonl'}",
        f"data.held_out_path={tmp_path / 'held_out.jsonl'}",
    )
    words = ("credit=rlrt", "model=tiny", "data=jsonl", *paths)

    def configs(*more: str) -> list[DictConfig]:
        return [compose([*words, *more, f"data.seed={seed}"]) for seed in (0, 1)]

    folders = [Path("one"), Path("other")]
    script.require_alike(folders, configs())
    with pytest.raises(UserError, match="data of other is not that of one"):
        script.require_alike(folders, configs("data.held_out_problems=5"))


def test_runs_that_were_asked_otherwise_are_refused(
    refused,  # type: ignore[no-untyped-def]
    run_folder: Path,
    tmp_path: Path,
) -> None:
    assert "--hard is 0" in refused(run_folder, "--hard", "0")
    assert "no such folder" in refused(tmp_path / "nowhere")
    for number, (name, value) in enumerate({"data.seed": 9, "training.temperature": 0.5}.items()):
        other = tmp_path / f"other{number}"
        shutil.copytree(run_folder, other, ignore=shutil.ignore_patterns("checkpoints", "rollouts"))
        config = OmegaConf.load(other / "config.yaml")
        OmegaConf.update(config, name, value)
        OmegaConf.update(config, "seed", 1)
        OmegaConf.save(config, other / "config.yaml")
        assert name.split(".seed")[0] in refused(run_folder, other)
