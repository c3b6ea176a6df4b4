"""scripts/figures/training_curves.py, run as a user runs it, on run folders with known numbers."""

import csv
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.e2e.scripts.commands import load_script, read_csv
from tests.paths import ROOT

from rlrt.errors import UserError

SCRIPT = ROOT / "scripts/figures/training_curves.py"
COLUMNS = ["step", "reward/mean", "rollout/response_tokens_mean", "rollout/engine_entropy"]


def write_table(path: Path, columns: list[str], rows: list[list[float | str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def make_run(root: Path, credit: str, seed: int, scores: list[float]) -> Path:
    """Four steps: reward 0, 0.25, 0.5, 0.75; length 10 + step + seed; entropy 1."""
    folder = root / f"{credit}{seed}"
    folder.mkdir()
    target = f"rlrt.credit.{credit}.{credit.upper()}"
    (folder / "config.yaml").write_text(f"seed: {seed}\ncredit:\n  _target_: {target}\n")
    rows: list[list[float | str]] = [[s, s / 4, 10 + s + seed, 1.0] for s in range(4)]
    write_table(folder / "metrics.csv", COLUMNS, rows)
    # the first column that an evaluation lacks is left empty, as a resumed run would
    write_table(
        folder / "evaluation.csv",
        ["step", "late", "avg@8"],
        [[step, "", score] for step, score in zip((0, 2, 4), scores, strict=True)],
    )
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path, "rlrt", 0, [0.4, 0.6, 0.9]),
        make_run(tmp_path, "rlrt", 1, [0.5, 0.7, 0.8]),
        make_run(tmp_path, "grpo", 0, [0.4, 0.5, 0.6]),
    ]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/training_curves")


def refused(script: ModuleType, out: Path, *words: str | Path) -> str:
    """The sentence; nothing was written."""
    with pytest.raises(UserError) as raised:
        script.main([*map(str, words), "--out", str(out / "curves")])
    assert not out.exists()
    return str(raised.value)


def test_a_picture_and_its_numbers_the_same_each_time(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    for name in ("once", "again"):
        out = str(tmp_path / name / "curves.svg")
        script.main([*map(str, folders), "--out", out, "--window", "2"])
    once = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert once.keys() == {"curves.svg", "curves.png", "curves.csv"}
    assert once == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert all(
        word in once["curves.svg"].decode()
        for word in ("0.850 rlrt", "0.600 grpo", "training reward")
    )
    rows = read_csv(tmp_path / "once" / "curves.csv")
    assert list(dict.fromkeys(row["column"] for row in rows)) == ["avg@8", *COLUMNS[1:]]
    last = [row for row in rows if row["column"] == "rollout/response_tokens_mean"][3]
    assert last == {
        "column": "rollout/response_tokens_mean",
        "method": "rlrt",
        "step": "3",
        "mean": "13.0",  # of 12.5 and 13.5, which are means of two steps
        "lowest": "12.5",
        "highest": "13.5",
        "seeds": "2",
    }


def test_a_real_run_and_the_columns_that_were_asked_for(
    script: ModuleType, tmp_path: Path, run_folder: Path
) -> None:
    columns = ["reward/mean", "avg@2"]
    out = str(tmp_path / "curves")
    script.main([str(run_folder), "--columns", ",".join(columns), "--out", out])
    rows = read_csv(tmp_path / "curves.csv")
    assert list(dict.fromkeys(row["column"] for row in rows)) == columns
    assert {row["method"] for row in rows} == {"rlrt"}


def test_a_run_that_has_not_ended_is_drawn_when_asked(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    write_table(folders[0] / "evaluation.csv", ["step", "avg@8"], [[0, 0.4]])
    said = refused(script, tmp_path / "out", *folders)
    assert "has not ended: 4 rollout steps done, the last evaluation after 0" in said
    script.main([*map(str, folders), "--unfinished", "--out", str(tmp_path / "out" / "curves")])
    scores = [row for row in read_csv(tmp_path / "out/curves.csv") if row["column"] == "avg@8"]
    # rlrt as far as both of its seeds came
    assert [row["step"] for row in scores if row["method"] == "rlrt"] == ["0"]


@pytest.mark.parametrize("lost", ["", "config.yaml", "metrics.csv", "evaluation.csv"])
def test_a_missing_folder_or_file_is_named(
    script: ModuleType, tmp_path: Path, folders: list[Path], lost: str
) -> None:
    if lost:
        (folders[1] / lost).unlink()
    else:
        folders[1] = tmp_path / "nowhere"
    said = refused(script, tmp_path / "out", *folders, "--unfinished")
    assert str(folders[1]) in said
    assert lost in said


def test_runs_and_options_that_do_not_fit_are_refused(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    out = tmp_path / "out"
    assert "same seed" in refused(script, out, folders[0], folders[0])
    assert "--window is 0, it must be" in refused(script, out, folders[0], "--window", "0")
    said = refused(script, out, folders[0], "--columns", "reward/men")
    assert "has no column reward/men" in said
    write_table(folders[2] / "evaluation.csv", ["step", "avg@16"], [[0, 0.4], [4, 0.5]])
    assert "avg@16, avg@8" in refused(script, out, *folders)


def test_the_command_ends_with_one_sentence(tmp_path: Path) -> None:
    line = [sys.executable, str(SCRIPT), "nowhere", "--out", str(tmp_path / "curves")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nowhere is no run folder: no such folder exists\n"
