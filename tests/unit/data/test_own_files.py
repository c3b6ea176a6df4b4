"""Files of problems as people have them: every kind gives the same problems, and odd cells are read."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.batch import Problem
from rlrt.data.rows import _array_rows, check_file
from rlrt.data.sources import FileProblems

ROWS = [{"problem": f"What is {n} + 1, in ⟨words⟩?", "answer": n + 1} for n in range(4)]


def json_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def json_array(path: Path) -> Path:
    path.write_text("\ufeff" + json.dumps(ROWS, indent=2), encoding="utf-8")
    return path


def json_array_in_one_line(path: Path) -> Path:
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


def json_array_within_an_object(path: Path) -> Path:
    whole = {"version": 1, "tags": ["a"], "data": ROWS}
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    return path


def csv(path: Path) -> Path:
    lines = ["problem,answer", *(f'"{row["problem"]}",{row["answer"]}' for row in ROWS)]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    return path


def packed_tsv(path: Path) -> Path:
    lines = ["problem\tanswer", *(f"{row['problem']}\t{row['answer']}" for row in ROWS)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def arrow_file(path: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def arrow_stream(path: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    return path


def saved(path: Path) -> Path:
    shuffled = datasets.Dataset.from_list([*ROWS[::-1], {"problem": "left out", "answer": 0}])
    shuffled.select([3, 2, 1, 0]).save_to_disk(path)
    return path


def saved_splits(path: Path) -> Path:
    train = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(path)
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (json_lines, "a.jsonl"),
        (json_lines, "a.json"),
        (json_array, "a.json"),
        (json_array, "a.jsonl"),
        (json_array_in_one_line, "a.json"),
        (json_array_within_an_object, "a.json"),
        (csv, "a.CSV"),
        (packed_tsv, "a.tsv.gz"),
        (parquet, "a.parquet"),
        (arrow_file, "a.arrow"),
        (arrow_stream, "a.arrow"),
        (saved, "a"),
        (saved_splits, "a"),
    ],
)
def test_every_kind_gives_the_same_problems(
    tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    source = FileProblems(path=str(write(tmp_path / name)), held_out_problems=1, source="own")
    problems = {*source.train().problems, *source.held_out().problems}
    read = {(problem.question, problem.answer) for problem in problems}
    assert read == {(row["problem"], str(row["answer"])) for row in ROWS}
    assert source.train().dropped == {"held out": 1}


def test_an_array_may_be_one_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlrt.data.rows.MAX_LINE_BYTES", 50)
    path = json_array_in_one_line(tmp_path / "a.json")
    assert len(path.read_bytes()) > 100
    source = FileProblems(path=str(path), held_out_problems=0)
    assert len(source.train().problems) == len(ROWS)


def test_a_broken_first_line_makes_no_array_of_a_file_of_lines(tmp_path: Path) -> None:
    """Such a file may be far larger than the memory: it is never read whole."""
    path = tmp_path / "a.jsonl"
    long = {"problem": "1 + 1?" + " " * 10_000, "answer": 2}
    path.write_text('[1, 2]\n{"problem": "cut of\n' + json.dumps(long) + "\n", encoding="utf-8")
    assert _array_rows(path) is None
    source = FileProblems(path=str(path), held_out_problems=0)
    assert [problem.answer for problem in source.train().problems] == ["2"]
    assert dict(source.train().dropped) == {"not an object": 1, "not JSON": 1}
    json_lines(path)
    assert _array_rows(path) is None


def test_splits_without_train_must_be_named(tmp_path: Path) -> None:
    part = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"dev": part, "test": part}).save_to_disk(tmp_path / "a")
    with pytest.raises(ValueError, match=r"which holds dev, test; name one: data\.path=.*a/dev$"):
        check_file(tmp_path / "a", "data.path")
    assert check_file(tmp_path / "a/test", "data.path") == tmp_path / "a/test"


def read(tmp_path: Path, *rows: dict[str, Any], **settings: Any) -> list[Problem]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = FileProblems(path=str(path), held_out_problems=0, **settings)
    return list(source.train().problems)


SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "What is 1 + 1?"}


@pytest.mark.parametrize("as_text", [False, True], ids=["list", "JSON text"])
@pytest.mark.parametrize(
    ("messages", "preceding"),
    [
        ([ASK], ()),
        ([SYSTEM, ASK], (("system", "Be brief."),)),
        (
            [ASK, {"role": "assistant", "content": "2"}, ASK],
            (("user", "What is 1 + 1?"), ("assistant", "2")),
        ),
    ],
)
def test_chat_messages(
    tmp_path: Path,
    as_text: bool,
    messages: list[dict[str, str]],
    preceding: tuple[tuple[str, str], ...],
) -> None:
    prompt = json.dumps(messages) if as_text else messages
    (problem,) = read(tmp_path, {"prompt": prompt, "answer": "2"}, question_column="prompt")
    assert problem.question == "What is 1 + 1?"
    assert problem.preceding == preceding


def test_a_path_steps_into_json_text(tmp_path: Path) -> None:
    row = {"prompt": [ASK], "reward_model": json.dumps({"ground_truth": "2"})}
    columns = {
        "question_column": "prompt.-1.content",
        "answer_column": "reward_model.ground_truth",
    }
    (problem,) = read(tmp_path, row, **columns)
    assert (problem.question, problem.answer) == ("What is 1 + 1?", "2")


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (["1", "3"], ("1", "3")),
        ([1, 3.5, "1"], ("1", "3.5")),
        (["7"], ("7",)),
        ("3*4=<<3*4=12>>12 cups.\n#### 12", ("12",)),
        (True, None),
        ([], None),
        ({"a": 1}, None),
        ("so it is\n####", None),
    ],
)
def test_answers(tmp_path: Path, answer: Any, accepted: tuple[str, ...] | None) -> None:
    sound = {"problem": "sound", "answer": "1"}
    first, *others = read(tmp_path, sound, {"problem": "q", "answer": answer})
    assert first.question == "sound"
    assert [problem.accepted_answers for problem in others] == ([accepted] if accepted else [])


def test_wrong_columns_are_one_sentence_with_those_that_are_there(tmp_path: Path) -> None:
    rows = [{"q": "1 + 1?", "a": "2", "level": 3}] * 5
    with pytest.raises(
        ValueError, match=r"^data\.question_column is 'problem' and data\.answer_co"
    ):
        read(tmp_path, *rows)
    with pytest.raises(
        ValueError, match=r"its columns are q, a, level: set data\.question_column="
    ):
        read(tmp_path, *rows, answer_column="a")
    (problem,) = read(tmp_path, rows[0], question_column="q", answer_column="a")
    assert problem.answer == "2"


def test_a_csv_row_with_too_many_cells_or_no_text_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'problem,answer\n1 + 1?,2\n1 + 2?,3,4\n\xff,5\n"1 + 3?",4\n1 + 4?\n')
    source = FileProblems(path=str(path), held_out_problems=0)
    assert [problem.answer for problem in source.train().problems] == ["2", "4"]
    dropped = {"too many cells": 1, "question not text": 1, "no answer": 1}
    assert dict(source.train().dropped) == dropped


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_damaged_table_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=rf"{name} cannot be read as {name[2:]}: "):
        FileProblems(path=str(path)).train()


CASES = {
    "array.json": {},
    "several_answers.jsonl": {},
    "worked_solution_as_answer.jsonl": {},
    "prompt_as_json_text.jsonl": {"question_column": "prompt"},
    "reward_model_as_json_text.jsonl": {
        "question_column": "prompt.-1.content",
        "answer_column": "reward_model.ground_truth",
    },
    "five.jsonl": {},
}


@pytest.mark.parametrize("name", CASES)
def test_handed_cases_are_read_whole(shared: Path, name: str) -> None:
    source = FileProblems(
        path=str(shared / "data_cases" / name), held_out_problems=0, **CASES[name]
    )
    train = source.train()
    assert train.problems
    assert not train.dropped
    if name == "worked_solution_as_answer.jsonl":
        assert [problem.answer for problem in train.problems] == ["12", "11", "13"]
    if name == "prompt_as_json_text.jsonl":
        assert {problem.preceding for problem in train.problems} == {(("system", "Be brief."),)}
