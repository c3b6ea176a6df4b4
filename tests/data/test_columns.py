from decimal import Decimal
from typing import Any

import pytest

from rlrt.batch import Problem
from rlrt.data.columns import Columns, plain_text, value_at
from rlrt.data.rows import BadRow, Row


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
