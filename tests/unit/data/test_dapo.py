import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.batch import Problem
from rlrt.data.dapo import DapoProblems, dapo_problem, language_of, without_wrapper
from rlrt.data.rows import BadRow, Row

HEADER = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
TRAILER = '\n\nRemember to put your answer on its own line after "Answer:".'
CHINESE_TRAILER = (
    " \n让我们一步一步地思考。请以“Answer: \\boxed{<final_answer>}”的格式输出最终答案。"
    "如果是选择题，请按顺序输出正确的选项，不带任何标点或空格。"
)


def hub_row(question: str, answer: Any, index: str) -> dict[str, Any]:
    """A row in the columns of the hub file."""
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": HEADER + question + TRAILER, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (HEADER + "Find $x$.\n\nIt is\n\neven." + TRAILER, "Find $x$.\n\nIt is\n\neven."),
        (HEADER + "求最小值." + CHINESE_TRAILER + TRAILER, "求最小值."),
        ("求最小值." + CHINESE_TRAILER, "求最小值."),
        ("Solve step by step: Answer: 3? Remember this.", None),
        ("Answer: is the answer to the problem.\n\nReally?", None),
    ],
)
def test_the_wrapper_and_nothing_else_is_removed(prompt: str, question: str | None) -> None:
    assert without_wrapper(prompt) == (prompt if question is None else question)


def test_a_row_of_the_hub() -> None:
    row = Row("hub/train:1", hub_row("Find $x$.", "34", "9a97"))
    assert dapo_problem(row) == Problem("9a97", "Find $x$.", "34", "DAPO-Math-17k")
    flat = {"prompt": "Find $x$.", "reward_model": {"ground_truth": 34}}
    assert dapo_problem(Row("hub/train:1", flat)) == Problem(
        "train:1", "Find $x$.", "34", "DAPO-Math-17k"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (hub_row("", "1", "a"), "no question"),
        (hub_row("Find.", None, "a"), "no answer"),
        (hub_row("Find.", ["1", "2"], "a"), "answer not text"),
        ({"prompt": [], "reward_model": {"ground_truth": "1"}}, "no question"),
        ({"question": "Find.", "answer": "1"}, "no question"),
    ],
)
def test_a_broken_row_of_the_hub(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        dapo_problem(Row("hub/train:1", row))
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["hub", "parquet"])
def test_the_hub_file_with_its_repetitions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [hub_row(f"Problem {n}", str(n), f"id{n}") for n in range(4)] * 5
    rows += [hub_row("Problem 3", "-3", "id3b"), hub_row("求最小值.", "1", "zh")]
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    if kind == "hub":
        source = DapoProblems(name=str(folder), language="en", held_out_problems=1)
    else:
        source = DapoProblems(str(folder / "train.parquet"), language="en", held_out_problems=1)
    with caplog.at_level(logging.WARNING):
        train, held_out = source.train(), source.held_out()
    assert sorted(p.id for p in train.problems + held_out.problems) == ["id0", "id1", "id2"]
    assert train.dropped == {
        "other language": 1,
        "conflicting answers": 6,
        "duplicate": 12,
        "held out": 1,
    }
    assert "data.overlap_with" in caplog.text
    assert source.provides == set()


@pytest.fixture
def plain(tmp_path: Path) -> str:
    rows = [
        {"problem": "one?", "answer": "1", "id": "a", "lang": "en"},
        {"problem": "two?", "answer": "2", "id": "b", "lang": "en", "overlap": "amc23:x"},
        {"problem": "three?", "answer": "-1", "id": "c", "lang": "en", "flag": "duplicate"},
        {"problem": "Is $4$ four?", "answer": "4", "id": "d"},
        {"problem": "五?", "answer": "5", "id": "e"},
    ]
    return write(tmp_path / "dapo.jsonl", rows)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, "acde"),
        ({"leave_out_overlaps": False}, "abcde"),
        ({"leave_out_flagged": True}, "ade"),
        ({"language": "en"}, "acd"),
        ({"language": "zh"}, "e"),
    ],
)
def test_what_the_settings_leave_out(plain: str, settings: dict[str, Any], kept: str) -> None:
    train = DapoProblems(plain, held_out_problems=0, **settings).train()
    assert "".join(p.id for p in train.problems) == kept
    assert sum(train.dropped.values()) == 5 - len(kept)


def test_overlap_with_local_evaluation_files(plain: str, tmp_path: Path) -> None:
    test_set = write(tmp_path / "test.jsonl", [{"problem": r"is \(4\) four", "answer": "4"}])
    train = DapoProblems(plain, overlap_with=[test_set], held_out_problems=0).train()
    assert [p.id for p in train.problems] == ["a", "c", "e"]
    assert train.dropped == {"overlap": 2}


def test_settings_are_checked_before_anything_is_read(plain: str) -> None:
    with pytest.raises(ValueError, match=r"data\.language is 'fr'; allowed: en, zh, null"):
        DapoProblems(plain, language="fr")
    with pytest.raises(ValueError, match=r"data\.path is .* does not exist"):
        DapoProblems("nowhere.jsonl")
    with pytest.raises(ValueError, match=r"data\.overlap_with is .*must be a list"):
        DapoProblems(plain, overlap_with="aime24.jsonl")
    with pytest.raises(ValueError, match=r"data\.overlap_with is .* does not exist"):
        DapoProblems(plain, overlap_with=["nowhere.jsonl"])
    with pytest.raises(ValueError, match=r"data\.bad_rows"):
        DapoProblems(plain, bad_rows="drop")


def test_the_clean_english_part_of_the_real_file(shared: Path) -> None:
    source = DapoProblems(
        str(shared / "data" / "dapo_math_17k.jsonl"),
        language="en",
        leave_out_flagged=True,
        held_out_problems=0,
        bad_rows="refuse",
    )
    train = source.train()
    assert len(train.problems) == 13_304
    assert len(train.problems) + sum(train.dropped.values()) == 17_398
    assert train.dropped["other language"] == 3_282
    assert not any("Answer:" in p.question for p in train.problems)


@pytest.mark.slow
def test_the_whole_real_file(shared: Path) -> None:
    data = shared / "data"
    rows = [json.loads(x) for x in (data / "dapo_math_17k.jsonl").read_text().split("\n") if x]
    assert [language_of(row["problem"]) for row in rows] == [row["lang"] for row in rows]
    names = ["aime24", "aime25", "aime26", "hmmt_feb_2026", "amc23", "math500"]
    source = DapoProblems(
        str(data / "dapo_math_17k.jsonl"), overlap_with=[str(data / f"{n}.jsonl") for n in names]
    )
    train, held_out = source.train(), source.held_out()
    assert len(held_out.problems) == 128
    assert len(train.problems) + sum(train.dropped.values()) == 17_398
    # the 60 that the file marks, and 20 more (docs/contamination.md)
    assert train.dropped["overlap"] == 80
