"""scripts/figures/markers.py on a real run of the tiny policy."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
from tests.e2e.scripts.commands import load_script, read_csv
from tests.paths import ROOT

from rlrt.batch import Verdict
from rlrt.records import read_table, record_files, rollouts_of, write_table


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/markers")


def test_every_position_of_one_right_and_one_wrong_trajectory_is_counted(
    script: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "markers"
    arguments = [str(run_folder), "--steps", "all", "--tokens", "any", "--min-count", "1"]
    script.main([*arguments, "--out", str(out)])
    problems = positions = 0
    for path in record_files(run_folder):
        rollouts = rollouts_of(read_table(path))
        for group in {rollout.group for rollout in rollouts}:
            members = [rollout for rollout in rollouts if rollout.group == group]
            right = [r for r in members if r.verdict is Verdict.RIGHT]
            wrong = [r for r in members if r.verdict is Verdict.WRONG]
            if len(right) > 1 and wrong:  # a right one needs another to be its context
                problems += 1
                positions += len(right[0].response.ids) + len(wrong[0].response.ids)
    assert problems
    rows = read_csv(out.with_suffix(".csv"))
    assert sum(int(row["explore"]) for row in rows) == positions
    assert sum(int(row["exploit"]) for row in rows) == positions
    assert f"{problems} problems" in capsys.readouterr().out
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
    assert out.with_suffix(".png").is_file()


def test_words_are_counted_where_nothing_else_is_asked_for(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "markers.svg"
    script.main([str(run_folder), "--steps", "0-2", "--min-count", "1", "--out", str(out)])
    rows = read_csv(out.with_suffix(".csv"))
    assert rows
    assert all(script.word(row["token"]) == row["token"] for row in rows)
    assert sorted((float(row["z"]) for row in rows), reverse=True) == [
        float(row["z"]) for row in rows
    ]


def test_an_evaluations_records_are_read_as_a_run_reads_them(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    evaluated = tmp_path / "evaluated"
    (evaluated / "records").mkdir(parents=True)
    source = run_folder / "rollouts" / "step=000000.parquet"
    shutil.copy(source, evaluated / "records" / "arithmetic.parquet")
    common = ["--min-count", "1", "--tokens", "any", "--out"]
    script.main([str(evaluated), "--run", str(run_folder), *common, str(tmp_path / "a")])
    script.main([str(run_folder), "--steps", "0", *common, str(tmp_path / "b")])
    assert read_csv(tmp_path / "a.csv") == read_csv(tmp_path / "b.csv")
    assert "name by --run the run folder" in refused(script, tmp_path, evaluated)
    steps = ["--run", run_folder, "--steps", "0"]
    assert "it has no steps" in refused(script, tmp_path, evaluated, *steps)


def refused(script: ModuleType, tmp_path: Path, *arguments: str | Path) -> str:
    out = tmp_path / "none" / "markers"
    with pytest.raises(script.UserError) as raised:
        script.main([str(argument) for argument in [*arguments, "--out", out]])
    assert not out.parent.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "3"], "no records of rollout step 3"),
        (["--steps", "first"], "--steps is first"),
        (["--steps", "1-x"], "--steps is 1-x"),
        (["--steps", "0,2-1"], "--steps is 0,2-1, and 2-1 names no step"),
        (["--min-count", "0"], "--min-count is 0"),
        (["--z", "nan"], "--z is nan"),
        (["--steps", "all", "--min-count", "100000"], "no token is there 100000 times"),
    ],
)
def test_wrong_options_are_refused(
    script: ModuleType, run_folder: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    assert said in refused(script, tmp_path, run_folder, *options)


def test_a_folder_without_records_is_one_sentence(script: ModuleType, tmp_path: Path) -> None:
    assert "no such folder exists" in refused(script, tmp_path, tmp_path / "nowhere")
    assert "holds no records" in refused(script, tmp_path, tmp_path)


def test_a_policy_with_another_tokenizer_is_refused(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "models" / "tiny", other)
    settings = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = settings["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (other / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "the tokenizer of" in refused(script, tmp_path, run_folder, "--model", other)


@pytest.mark.parametrize("verdict", ["right", "wrong", "undecided"])
def test_trajectories_that_are_all_alike_are_refused(
    script: ModuleType, run_folder: Path, tmp_path: Path, verdict: str
) -> None:
    copy = tmp_path / "copy"
    (copy / "rollouts").mkdir(parents=True)
    shutil.copy(run_folder / "config.yaml", copy)
    shutil.copytree(run_folder / "export", copy / "export")
    table = read_table(record_files(run_folder)[0])
    column = pa.array([verdict] * table.num_rows)
    table = table.set_column(table.column_names.index("verdict"), "verdict", column)
    write_table(table, copy / "rollouts" / "step=000000.parquet")
    said = refused(script, tmp_path, copy, "--context", "answer")
    right, wrong = (16 * (verdict == name) for name in ("right", "wrong"))
    assert f"there are {right} correct and {wrong} incorrect ones" in said
