import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlrt.batch import Problem
from rlrt.data.benchmarks import read_problem_file
from rlrt.data.problems import optional_fields
from rlrt.data.sources import FileProblems, HubProblems

BENCHMARKS = {
    "aime24": 30,
    "aime25": 30,
    "aime26": 30,
    "amc23": 40,
    "countdown_test": 1024,
    "dapo_math_17k": 17398,
    "gsm8k_test": 1319,
    "gsm8k_train": 7473,
    "hmmt_feb_2026": 33,
    "math500": 500,
    "math_train_7500": 7497,
}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"problem": f"question {n}", "answer": n, "id": f"n{n}"} for n in range(count)]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_shared_file_loads_whole(shared: Path, name: str) -> None:
    path = shared / "data" / f"{name}.jsonl"
    found = read_problem_file(path, "path")
    assert found.dropped == {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert len(found.problems) == len(rows) == BENCHMARKS[name]
    assert [p.id for p in found.problems] == [row["id"] for row in rows]
    assert [p.question for p in found.problems] == [row["problem"].strip() for row in rows]
    assert [p.answer for p in found.problems] == [row["answer"].strip() for row in rows]


def test_a_local_file_with_named_columns(tmp_path: Path) -> None:
    rows = [{"q": "1 + 1?", "meta": {"gold": 2, "note": "not 11"}, "key": 7, "why": "add"}]
    source = FileProblems(
        write(tmp_path / "mine.jsonl", rows),
        question_column="q",
        answer_column="meta.gold",
        id_column="key",
        solution_column="why",
        feedback_column="meta.note",
    )
    assert source.train().problems == (Problem("7", "1 + 1?", "2", "mine", "add", "not 11"),)
    assert source.held_out().problems == ()


@pytest.mark.parametrize(
    ("columns", "provided"),
    [
        ({}, set()),
        ({"solution_column": "s"}, {"solution"}),
        ({"feedback_column": "f"}, {"feedback"}),
        ({"solution_column": "s", "feedback_column": "f"}, {"solution", "feedback"}),
    ],
)
def test_what_a_table_provides_is_known_before_it_is_read(
    tmp_path: Path, columns: dict[str, str], provided: set[str]
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no row")
    assert FileProblems(str(broken), **columns).provides == provided  # type: ignore[arg-type]
    assert HubProblems("no/such", **columns).provides == provided  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["solution", "feedback"])
def test_an_optional_column_may_have_gaps_but_not_be_empty(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "mine.jsonl", [*numbered(2), {**numbered(3)[2], "extra": "text"}])
    some = FileProblems(path, **{f"{field}_column": "extra"}).train()  # type: ignore[arg-type]
    assert [getattr(problem, field) for problem in some.problems] == [None, None, "text"]
    assert optional_fields(some) == {field}
    with pytest.raises(ValueError, match=rf"data\.{field}_column is 'extr', and no training row"):
        FileProblems(path, **{f"{field}_column": "extr"}).train()  # type: ignore[arg-type]


def test_bad_rows_are_skipped_and_counted_or_refused(tmp_path: Path) -> None:
    rows: list[Any] = [
        *numbered(2),
        {"problem": "p"},
        {"answer": "1"},
        {"problem": 1, "answer": True},
    ]
    path = write(tmp_path / "mine.jsonl", rows)
    assert FileProblems(path).train().dropped == {
        "no answer": 1,
        "no question": 1,
        "answer not text": 1,
    }
    refusing = FileProblems(path, bad_rows="refuse")
    with pytest.raises(ValueError, match=r"mine\.jsonl:3: no answer"):
        refusing.train()


def test_a_held_out_file_and_a_held_out_share(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", numbered(40))
    tested = write(tmp_path / "test.jsonl", [{"problem": "question  3", "answer": "3"}])
    both = FileProblems(path, held_out_path=tested)
    assert [p.id for p in both.held_out().problems] == ["test.jsonl:1"]
    assert "n3" not in {p.id for p in both.train().problems}
    assert both.train().dropped == {"also held out": 1}
    share = FileProblems(path, held_out_problems=10)
    assert len(share.held_out().problems) == 10
    assert len(share.train().problems) == 30


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"no problem left in .*empty\.jsonl: it has no rows"):
        FileProblems(str(path)).train()


def test_settings_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", numbered(3))
    with pytest.raises(ValueError, match=r"data\.path is .*does not exist"):
        FileProblems(path + "l.jsonl")
    with pytest.raises(ValueError, match=r"data\.held_out_path is .*a folder"):
        FileProblems(path, held_out_path=str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.bad_rows is 'ignore'; allowed: skip, refuse"):
        FileProblems(path, bad_rows="ignore")
    with pytest.raises(ValueError, match=r"data\.held_out_problems is -1"):
        HubProblems("a/b", held_out_problems=-1)
    with pytest.raises(ValueError, match=r"data\.bad_rows"):
        HubProblems("a/b", bad_rows="")
    with pytest.raises(ValueError, match=r"data\.name is empty"):
        HubProblems("")


@pytest.mark.parametrize(
    ("count", "rule"),
    [
        (-1, "; allowed: null or an integer from 0"),
        *((value, ", it must be a whole number or null") for value in (1.5, True, "3")),
    ],
)
def test_what_is_no_number_of_problems_is_refused(count: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.held_out_problems is {count!r}{rule}$"):
        HubProblems("a/b", held_out_problems=count)


def test_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` loads a folder by the same call as a hub repository."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", numbered(30))
    write(folder / "test.jsonl", numbered(4))
    both = HubProblems(str(folder), held_out_split="test", source="mine", feedback_column="answer")
    assert [p.id for p in both.held_out().problems] == ["n0", "n1", "n2", "n3"]
    assert len(both.train().problems) == 26
    assert both.train().problems[0] == Problem("n4", "question 4", "4", "mine", None, "4")
    share = HubProblems(str(folder), id_column=None)
    assert len(share.held_out().problems) == 3
    assert {p.id for p in share.train().problems + share.held_out().problems} == {
        f"train:{n}" for n in range(1, 31)
    }
