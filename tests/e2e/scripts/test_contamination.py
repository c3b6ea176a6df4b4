"""scripts/contamination.py: its tables, its file, and what it refuses."""

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.scripts.commands import load_script, read_csv
from tests.processes import run_command

from rlrt.errors import UserError

BUS = (
    "A red bus of {} seats waits at the museum until every seat is taken by a visitor. How many "
    "people sit in {} such buses, if the drivers and the guides stand all the way to the harbour?"
)


@pytest.fixture(scope="module")
def main() -> Callable[[Sequence[str]], None]:
    """The command in this process: no seconds of imports for every case."""
    command: Callable[[Sequence[str]], None] = load_script("contamination").main
    return command


@pytest.fixture
def contamination(
    main: Callable[[Sequence[str]], None], capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What the command prints for some words."""

    def printed(*words: str) -> str:
        main(words)
        return capsys.readouterr().out

    return printed


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


def test_table_examples_and_file(
    tmp_path: Path, files: tuple[Path, Path], contamination: Callable[..., str]
) -> None:
    train, buses = files
    out = tmp_path / "new" / "overlaps.csv"
    printed = contamination(
        "data=dapo_math_17k", f"data.path={train}", f"benchmark={buses}", f"out={out}"
    )
    assert "44 training problems, 1 of benchmarks" in printed
    line = next(line for line in printed.splitlines() if "buses" in line)
    # problems, exact, near, variant, marked, marked and found, found and not marked
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["1", "1", "1", "1", "2", "1", "1"]
    assert "Provide your answer as an integer." in printed
    rows = read_csv(out)
    assert [(row["train_id"], row["kind"], row["marked"]) for row in rows] == [
        ("t0", "exact", "False"),
        ("t1", "near", "True"),
        ("t2", "variant", "False"),
    ]
    assert rows[1]["benchmark"] == "buses"
    assert rows[1]["benchmark_question"] == BUS.format("$40$", r"\(7\)")


def test_a_file_without_marks_and_a_stricter_similarity(
    files: tuple[Path, Path], contamination: Callable[..., str]
) -> None:
    train, buses = files
    printed = contamination(
        "data=jsonl", f"data.path={buses}", "data.question_column=question",
        f"benchmark=[{train}]", "similarity=1", "examples=0",
    )  # fmt: skip
    line = next(line for line in printed.splitlines() if line.startswith("│ train"))
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["44", "1", "0", "0"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run as a user runs it."""
    return run_command("scripts/contamination.py", *words)


def test_arithmetic_with_itself() -> None:
    run = command("data=arithmetic", "data.train_problems=50", "benchmark=arithmetic")
    assert run.returncode == 0, run.stderr
    assert "50 training problems, 128 of benchmarks" in run.stdout


def test_the_command_ends_in_one_sentence() -> None:
    run = command("data=arithmetic", "benchmark=aime27")
    assert run.returncode == 2
    assert run.stderr.startswith("error: benchmark is aime27, it must be all, one of aime24")
    assert len(run.stderr.splitlines()) == 1
    assert not run.stdout


def test_bad_input_is_one_sentence(
    tmp_path: Path, files: tuple[Path, Path], main: Callable[[Sequence[str]], None]
) -> None:
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
        with pytest.raises(UserError, match=re.escape(said)) as caught:
            main(words)
        assert "\n" not in str(caught.value)


def test_help_says_how_it_is_called(contamination: Callable[..., str]) -> None:
    assert "benchmark=all" in contamination("--help")
