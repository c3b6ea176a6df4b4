"""scripts/contamination.py, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.scripts.commands import read_csv

ROOT = Path(__file__).resolve().parents[2]
BUS = (
    "A red bus of {} seats waits at the museum until every seat is taken by a visitor. How many "
    "people sit in {} such buses, if the drivers and the guides stand all the way to the harbour?"
)


def contamination(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "contamination.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    questions = [
        BUS.format(40, 7),
        BUS.format(40, 7) + " Provide your answer as an integer.",
        BUS.format(41, 9),
        "Find the largest even number below 17 that is a square [/red] [u \\times v].",
        *(f"Which of the numbers from 1 to {n} is the one with most divisors?" for n in range(40)),
    ]
    train = [
        {"problem": question, "answer": "1", "id": f"t{n}"} for n, question in enumerate(questions)
    ]
    train[1]["overlap"] = train[3]["overlap"] = "buses:b"
    test = [{"question": BUS.format("$40$", r"\(7\)"), "answer": "280", "id": "b"}]
    return write(tmp_path / "train.jsonl", train), write(tmp_path / "buses.jsonl", test)


def test_table_examples_and_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    train, buses = files
    out = tmp_path / "new" / "overlaps.csv"
    run = contamination(
        "data=dapo_math_17k", f"data.path={train}", f"benchmark={buses}", f"out={out}"
    )
    assert run.returncode == 0, run.stderr
    assert "44 training problems, 1 of benchmarks" in run.stdout
    line = next(line for line in run.stdout.splitlines() if "buses" in line)
    # problems, exact, near, variant, marked, marked and found, found and not marked
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["1", "1", "1", "1", "2", "1", "1"]
    assert "Provide your answer as an integer." in run.stdout
    rows = read_csv(out)
    assert [(row["train_id"], row["kind"], row["marked"]) for row in rows] == [
        ("t0", "exact", "False"),
        ("t1", "near", "True"),
        ("t2", "variant", "False"),
    ]
    assert rows[1]["benchmark"] == "buses"
    assert rows[1]["benchmark_question"] == BUS.format("$40$", r"\(7\)")


def test_a_file_without_marks_and_a_stricter_similarity(files: tuple[Path, Path]) -> None:
    train, buses = files
    run = contamination(
        "data=jsonl", f"data.path={buses}", "data.question_column=question",
        f"benchmark=[{train}]", "similarity=1", "examples=0",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("│ train"))
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["44", "1", "0", "0"]


def test_arithmetic_with_itself() -> None:
    run = contamination("data=arithmetic", "data.train_problems=50", "benchmark=arithmetic")
    assert run.returncode == 0, run.stderr
    assert "50 training problems, 128 of benchmarks" in run.stdout


def test_bad_input_is_one_sentence(tmp_path: Path, files: tuple[Path, Path]) -> None:
    train, buses = files
    data = ["data=jsonl", f"data.path={train}"]
    broken = write(tmp_path / "broken.jsonl", [{"problem": "Why?"}])
    (tmp_path / "other").mkdir()
    same = write(tmp_path / "other" / "buses.jsonl", [{"problem": "Why?", "answer": "1"}])
    for words, said in (
        (data, "benchmark=<names, all or files> is missing"),
        ([f"benchmark={buses}"], "data=<file of configs/data> is missing"),
        ([*data, "benchmark=aime27"], "benchmark is aime27, it must be all, one of aime24"),
        ([*data, f"benchmark={broken}"], "broken.jsonl:1: no answer"),
        ([*data, "benchmark=aime24", f"benchmark_folder={tmp_path}"], "does not exist"),
        ([*data, f"benchmark={buses}", "similarity=much"], "similarity is much"),
        ([*data, f"benchmark={buses}", "similarity=2"], "similarity is 2.0"),
        ([*data, "benchmark"], "benchmark= has no value"),
        ([*data, f"benchmark={buses}", "benchmark=all"], "benchmark= is given twice"),
        ([*data, "benchmark=all,,aime24"], "an item between commas is empty"),
        ([*data, f"benchmark={buses}", "examples=2.7"], "examples is 2.7, it must be a whole"),
        ([*data, f"benchmark={buses}", "examples=-1"], "examples is -1, it must be a whole"),
        ([*data, f"benchmark={buses},{same}"], "benchmark names buses twice"),
        (
            [*data, f"benchmark={buses}", "simlarity=1"],
            "no setting; allowed: benchmark, benchmark_",
        ),
        (["data=jsonl", "data.path=nowhere.jsonl", f"benchmark={buses}"], "does not exist"),
    ):
        run = contamination(*words)
        assert run.returncode == 2, run.stderr
        assert said in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr


def test_help_says_how_it_is_called() -> None:
    run = contamination("--help")
    assert run.returncode == 0, run.stderr
    assert "benchmark=all" in run.stdout
