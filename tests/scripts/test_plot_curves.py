"""scripts/plot_curves.py, run as a user runs it, on run folders with known numbers."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "plot_curves.py"
CLASSES = {"rlrt": "RLRT", "grpo": "GRPO"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plot_curves", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_table(path: Path, columns: list[str], rows: list[list[float | str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def run_folder(
    root: Path, credit: str, seed: int, scores: list[float], settings: str = "mixing: 0.5"
) -> Path:
    """A run of four steps, evaluated before the first, in the middle, and after the last."""
    folder = root / f"{credit}{seed}{settings}".replace(":", "=").replace(" ", "")
    folder.mkdir()
    target = f"rlrt.credit.{credit}.{CLASSES[credit]}"
    (folder / "config.yaml").write_text(
        f"seed: {seed}\ncredit:\n  _target_: {target}\n  {settings}\n"
    )
    columns = ["step", "reward/mean", "rollout/entropy", "time/step_s", "sync/logprob_gap"]
    write_table(
        folder / "metrics.csv",
        columns,
        [[s, 0.25 * s, 1.5, 10.0 if s == 0 else 2.0 + seed, 1e-6 * (s + seed)] for s in range(4)],
    )
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
        run_folder(tmp_path, "rlrt", 0, [0.4, 0.6, 0.9]),
        run_folder(tmp_path, "rlrt", 1, [0.5, 0.7, 0.8]),
        run_folder(tmp_path, "grpo", 0, [0.4, 0.5, 0.6]),
    ]


def plot(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_draws_and_prints_what_the_runs_came_to(tmp_path: Path, folders: list[Path]) -> None:
    out = tmp_path / "curves.svg"
    done = plot(*folders, "--out", out, "--title", "a title")
    assert done.returncode == 0, done.stderr
    assert out.read_text().startswith("<?xml")
    table = [line.split() for line in done.stdout.splitlines()]
    rlrt = next(words for words in table if words[0] == "rlrt")
    grpo = next(words for words in table if words[0] == "grpo")
    assert rlrt[1:] == [
        "0,1",
        "0.450",
        "(0.400–0.500)",
        "0.850",
        "(0.800–0.900)",
        "4",
        "3.00",  # the median of 10, 2, 2, 2, 10, 3, 3, 3 is 3
        "4.0e-06",
    ]
    assert grpo[2:6] == ["0.400", "(0.400–0.400)", "0.600", "(0.600–0.600)"]

    again = tmp_path / "again.svg"
    assert plot(*folders, "--out", again, "--title", "a title").returncode == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_png_of_another_column(tmp_path: Path, folders: list[Path]) -> None:
    out = tmp_path / "curves.png"
    done = plot(folders[0], "--out", out, "--column", "rollout/entropy")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("lost", ["", "config.yaml", "metrics.csv", "evaluation.csv"])
def test_a_missing_folder_or_file_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, folders: list[Path], lost: str
) -> None:
    if lost:
        (folders[1] / lost).unlink()
    else:
        folders[1] = tmp_path / "nowhere"
    out = tmp_path / "curves.svg"
    done = plot(*folders, "--out", out)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(folders[1]) in done.stderr
    assert lost in done.stderr
    assert not done.stdout
    assert not out.exists()


def fail_sentence(script: ModuleType, *arguments: str | Path) -> str:
    with pytest.raises(script.UserError) as raised:
        script.main([str(argument) for argument in arguments])
    return str(raised.value)


def test_a_run_that_has_not_ended_is_refused(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    write_table(folders[0] / "evaluation.csv", ["step", "avg@8"], [[0, 0.4], [2, 0.5]])
    said = fail_sentence(script, folders[0], "--out", tmp_path / "curves.svg")
    assert "has not ended: 4 rollout steps done, the last evaluation after 2" in said


def test_runs_that_do_not_belong_together_are_refused(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    out = tmp_path / "curves.svg"
    assert "same seed" in fail_sentence(script, folders[0], folders[0], "--out", out)
    write_table(folders[2] / "evaluation.csv", ["step", "avg@16"], [[0, 0.4], [4, 0.5]])
    assert "avg@16, avg@8" in fail_sentence(script, *folders, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "curves.gif"], "--out is curves.gif"),
        (["--out", "nowhere/curves.svg"], "--out is nowhere/curves.svg"),
        (["--out", "curves.svg", "--smooth", "0"], "--smooth is 0"),
        (["--out", "curves.svg", "--column", "reward/men"], "lacks reward/men"),
    ],
)
def test_wrong_options_are_refused(
    script: ModuleType, folders: list[Path], options: list[str], said: str
) -> None:
    assert said in fail_sentence(script, folders[0], *options)


def test_methods_of_one_class_are_told_apart_by_their_settings(
    script: ModuleType, tmp_path: Path, folders: list[Path]
) -> None:
    other = run_folder(tmp_path, "rlrt", 0, [0.4, 0.6, 0.9], "mixing: 1.0")
    methods = script.group_runs([script.read_run(folder) for folder in [*folders, other]])
    assert {name: len(runs) for name, runs in methods.items()} == {
        "rlrt credit.mixing=0.5": 2,
        "grpo": 1,
        "rlrt credit.mixing=1.0": 1,
    }


def test_trailing_mean_of_values_worked_out_by_hand(script: ModuleType) -> None:
    values = {0: 1.0, 1: 3.0, 2: 5.0, 5: 0.0}
    assert script.trailing_mean(values, 2) == {0: 1.0, 1: 2.0, 2: 4.0, 5: 2.5}
    assert script.trailing_mean(values, 1) == values


def test_labels_keep_their_order_and_their_distance(script: ModuleType) -> None:
    assert script.spread([0.5, 0.4, 0.9], 0.2) == pytest.approx([0.6, 0.4, 0.9])
    assert script.spread([0.5, 0.5], 0.1) == pytest.approx([0.5, 0.6])
