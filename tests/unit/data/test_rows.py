import gzip
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.batch import Problem
from rlrt.data import rows
from rlrt.data.rows import (
    BadRow,
    Columns,
    Row,
    check_file,
    plain_text,
    read_file,
    read_hub,
    value_at,
)

GOOD = {"problem": "1 + 1 = ?", "answer": "2"}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def errors(path: Path) -> dict[int, str]:
    """Reason by line number of the rows that could not be read."""
    found = [(int(row.place.rsplit(":", 1)[1]), row.error) for row in read_file(path)]
    return {line: error.reason for line, error in found if error is not None}


def test_each_unreadable_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    lines = [
        good,
        b"{broken",
        b'["a", "list"]',
        b'{"problem": "\xff\xfe", "answer": "1"}',
        b'{"problem": "raw \x00 byte", "answer": "1"}',
        b"[" * 200_000,
        b"9" * 5000,
        good,
    ]
    path = written(tmp_path / "a.jsonl", b"\n".join(lines))
    assert errors(path) == {
        2: "not JSON",
        3: "not an object",
        4: "not UTF-8",
        5: "not JSON",
        6: "not JSON",
        7: "not JSON",
    }
    assert [row.place for row in read_file(path) if row.error is None] == [f"{path}:1", f"{path}:8"]


def test_bom_crlf_blank_lines_and_line_separators_inside_text(tmp_path: Path) -> None:
    text = json.dumps({"problem": "a\u2028b\x85c", "answer": "é"}, ensure_ascii=False)
    content = b"\xef\xbb\xbf" + f"{text}\r\n\r\n   \n{text}".encode()
    read = list(read_file(written(tmp_path / "a.jsonl", content)))
    assert [row.place.rsplit(":", 1)[1] for row in read] == ["1", "4"]
    assert [row.columns for row in read] == [{"problem": "a\u2028b\x85c", "answer": "é"}] * 2


def test_an_endless_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 64)
    good = json.dumps(GOOD).encode()
    exact = good + b" " * (63 - len(good))
    lines = [good, b'{"problem": "' + b"x" * 1000 + b'"}', exact, good]
    path = written(tmp_path / "a.jsonl", b"\n".join(lines))
    assert errors(path) == {2: "line too long"}
    assert len(list(read_file(path))) == 4


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "A.JSONL.GZ"])
def test_kinds_of_json_file(tmp_path: Path, name: str) -> None:
    content = json.dumps(GOOD).encode() + b"\n"
    packed = gzip.compress(content) if name.lower().endswith(".gz") else content
    (row,) = read_file(check_file(written(tmp_path / name, packed), "data.path"))
    assert row.columns == GOOD


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    nested = [{"prompt": [{"role": "user", "content": "q"}], "n": 3}, {"prompt": None, "n": None}]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(nested), path)
    read = list(read_file(path))
    assert [row.columns for row in read] == nested
    assert [row.place for row in read] == [f"{path}:1", f"{path}:2"]


def test_a_missing_file_a_folder_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path is .*gone\.jsonl', which does not exist"):
        check_file(tmp_path / "gone.jsonl", "data.path")
    with pytest.raises(ValueError, match=r"data\.path is .*, a folder"):
        check_file(tmp_path, "data.path")
    with pytest.raises(ValueError, match=r"must end in \.jsonl, \.json, .*\.parquet"):
        check_file(written(tmp_path / "a.txt", b"problem,answer\n"), "data.path")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", b"not packed at all"),
        ("a.jsonl.gz", gzip.compress(os.urandom(9999))[:-999]),
        ("a.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\xff" * 50),
        ("a.parquet", b"PAR1 no, not really PAR1"),
        ("a.parquet", b""),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"{name} cannot be read") as caught:
        list(read_file(path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` loads as it would a hub repository: two splits of parquet files."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, answers in {"train": ["1", "2"], "test": ["3"]}.items():
        table = pa.Table.from_pylist([{"meta": {"answer": answer}} for answer in answers])
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_rows_of_a_hub_data_set(hub_copy: Path) -> None:
    read = list(read_hub(str(hub_copy), None, "train"))
    assert [row.columns["meta"]["answer"] for row in read] == ["1", "2"]
    assert read[1].place == f"{hub_copy}/train:2"


@pytest.mark.parametrize(("config", "split"), [(None, "validation"), ("nested", "train")])
def test_an_unknown_split_or_config_is_named(
    hub_copy: Path, config: str | None, split: str
) -> None:
    with pytest.raises(ValueError, match=rf"config {config!r}, split {split!r}\) could not") as it:
        list(read_hub(str(hub_copy), config, split))
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    "surroundings",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["offline", "nobody answers"],
)
def test_an_unreachable_hub_is_one_sentence(surroundings: dict[str, str]) -> None:
    """In a process of its own: the switch is read when `datasets` is imported. Nothing is tried again."""
    code = (
        "from rlrt.data.rows import read_hub\n"
        "try:\n    list(read_hub('openai/gsm8k-is-not-here', 'main', 'train'))\n"
        "except ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | surroundings,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "Retry" not in run.stderr
    (sentence,) = run.stdout.splitlines()
    assert "'openai/gsm8k-is-not-here'" in sentence
    assert "data.path" in sentence


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  \\frac{1}{2}\n", "\\frac{1}{2}"),
        (42, "42"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (Decimal("2.50"), "2.50"),
        (["72"], "72"),
        ([7], "7"),
    ],
)
def test_text_and_numbers_become_text(value: Any, text: str) -> None:
    assert plain_text(value, "answer") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "answer not text"),
        ([True], "answer not text"),
        (["1", "2"], "answer not text"),
        ([], "answer not text"),
        ({"value": 1}, "answer not text"),
        (None, "answer not text"),
        (float("nan"), "answer not text"),
        (float("-inf"), "answer not text"),
        ("a\0b", "answer not text"),
        ("half a pair \ud83d", "answer not text"),
        (" \n\t", "no answer"),
        ("", "no answer"),
    ],
)
def test_what_is_no_text_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        plain_text(value, "answer")
    assert caught.value.reason == reason


NESTED = {
    "prompt": [{"content": "first"}, {"content": "last"}],
    "reward_model": {"ground_truth": "34"},
    "a.b": "dotted",
    "a": {"b": "stepped"},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt.0.content", "first"),
        ("prompt.-1.content", "last"),
        ("prompt.7.content", None),
        ("prompt.content", None),
        ("prompt.--1", None),
        ("reward_model.ground_truth", "34"),
        ("reward_model.ground_truth.more", None),
        ("a.b", "dotted"),
        ("nothing", None),
        ("", None),
    ],
)
def test_dotted_paths(name: str, value: Any) -> None:
    assert value_at(NESTED, name) == value


def test_a_row_becomes_a_problem() -> None:
    cells = {"q": " 1 + 1? ", "a": 2, "key": 9, "why": "add", "notes": {"text": " not 11 "}}
    named = Columns("q", "a", "key", "why", "notes.text")
    assert named.problem(Row("data/x.jsonl:3", cells), "mine") == Problem(
        "9", "1 + 1?", "2", "mine", "add", "not 11"
    )


@pytest.mark.parametrize("cells", [{}, {"why": None, "notes": None}, {"why": "", "notes": " \n"}])
def test_a_row_may_lack_solution_and_feedback(cells: dict[str, Any]) -> None:
    row = Row("x.jsonl:3", {"problem": "p", "answer": "a", "id": "i", **cells})
    named = Columns(solution="why", feedback="notes")
    assert named.problem(row, "mine") == Problem("i", "p", "a", "mine", None, None)


@pytest.mark.parametrize("field", ["solution", "feedback"])
def test_a_solution_or_feedback_that_is_no_text_is_a_bad_row(field: str) -> None:
    row = Row("x.jsonl:3", {"problem": "p", "answer": "a", "extra": {"text": "add"}})
    with pytest.raises(BadRow, match=f"{field} not text"):
        Columns(**{field: "extra"}).problem(row, "mine")


@pytest.mark.parametrize("columns", [{}, {"id": None}, {"id": ""}])
def test_a_row_without_id_is_named_by_its_place(columns: dict[str, Any]) -> None:
    row = Row("data/x.jsonl:3", {"problem": "p", "answer": "a", **columns})
    assert Columns().problem(row, "mine").id == "x.jsonl:3"


def test_a_missing_column_says_which_ones_there_are() -> None:
    with pytest.raises(BadRow, match=r"no question \(nothing in column 'problem'.*: query, answer"):
        Columns().problem(Row("x:1", {"query": "p", "answer": "a"}), "mine")
