"""scripts/compare_runs.py, run as a user runs it, on run folders with known numbers."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from tests.paths import ROOT

COLUMNS = [
    "step",
    "reward/mean",
    "rollout/response_tokens_mean",
    "rollout/engine_entropy",
    "time/step_s",
]


def run_folder(
    root: Path, seed: int, loss: str = "policy_loss.ClippedSurrogate", steps: int = 4
) -> Path:
    """Four steps, or others: reward step / 4; length 10 + step + seed; entropy 1; 2 + seed seconds."""
    folder = root / f"{loss}{seed}"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"seed: {seed}\ncredit: {{_target_: rlrt.credit.srpo.SRPO, beta: 1.0}}\n"
        f"loss: {{_target_: rlrt.loss.{loss}}}\n"
        f"context: {{_target_: x.Peer, seed: {seed}, parts: [{{seed: {seed}}}]}}\n"
    )
    tables = {
        "metrics.csv": [
            COLUMNS,
            *([s, s / 4, 10 + s + seed, 1.0, 2.0 + seed] for s in range(steps)),
        ],
        "evaluation.csv": [["step", "avg@8"], [0, 0.4], [steps, 0.8 + seed / 10]],
    }
    for name, rows in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def compare(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/compare_runs.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_holds_what_the_runs_came_to(tmp_path: Path) -> None:
    done = compare(run_folder(tmp_path, 0), run_folder(tmp_path, 1), "--window", "2")
    assert done.returncode == 0, done.stderr
    headings, _, row = done.stdout.splitlines()
    found = dict(zip(cells(headings), cells(row), strict=True))
    assert found["method"] == "`srpo`"
    assert found["seeds"] == "0, 1"
    assert found["avg@8 before"] == "0.400 (0.400–0.400)"
    assert found["after 4 steps"] == "0.850 (0.800–0.900)"
    assert found["length, first 2"] == "11.0 (10.5–11.5)"
    assert cells(row)[5] == "13.0 (12.5–13.5)"  # the last 2
    assert cells(row)[9] == "0.625 (0.625–0.625)"  # reward, last 2
    assert found["s/step"] == "2.50"


def test_runs_that_differ_in_another_part_are_two_methods(tmp_path: Path) -> None:
    done = compare(run_folder(tmp_path, 0), run_folder(tmp_path, 0, "policy_loss.GSPO"))
    assert done.returncode == 0, done.stderr
    names = [cells(line)[0] for line in done.stdout.splitlines()[2:]]
    assert names == [
        "`srpo loss=ClippedSurrogate`",
        "`srpo loss=GSPO`",
    ]


def test_runs_of_another_model_are_another_method(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, seed) for seed in range(2)]
    for folder, name in zip(folders, ("small", "large"), strict=True):
        with (folder / "config.yaml").open("a") as file:
            file.write(f"model: {{name: {name}}}\n")
    done = compare(*folders)
    assert done.returncode == 0, done.stderr
    names = [cells(line)[0] for line in done.stdout.splitlines()[2:]]
    assert names == ["`srpo model.name=small`", "`srpo model.name=large`"]


def test_seeds_that_ended_after_different_steps_have_no_mean(tmp_path: Path) -> None:
    done = compare(run_folder(tmp_path, 0), run_folder(tmp_path, 1, steps=6))
    assert done.returncode == 2
    assert done.stderr == (
        "error: runs of srpo ended after 4 and 6 rollout steps: not comparable\n"
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "metrics.csv").unlink(), "metrics.csv not found"),
        (lambda folder: (folder / "evaluation.csv").write_text("step,avg@8\n0,0.4\n"), "not ended"),
        (lambda folder: (folder / "config.yaml").write_text("seed: ["), "config.yaml is damaged"),
        (lambda folder: (folder / "config.yaml").write_text("- 1"), "config.yaml is damaged"),
    ],
)
def test_a_broken_run_folder_is_named_in_one_sentence(
    tmp_path: Path, damage, sentence: str
) -> None:
    folder = run_folder(tmp_path, 0)
    damage(folder)
    done = compare(folder)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_window_of_nothing_is_refused(tmp_path: Path) -> None:
    done = compare(run_folder(tmp_path, 0), "--window", "0")
    assert (done.returncode, done.stderr) == (2, "error: --window is 0, it must be at least 1\n")
