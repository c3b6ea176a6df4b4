import logging

import pytest

from rlrt.batch import Problem
from rlrt.data.questions import LeftOut, convert, gather, question_key
from rlrt.data.rows import BadRow, Row


def problem(question: str, answer: str = "1", id_: str = "x") -> Problem:
    return Problem(id_, question, answer, "test")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Find  $x$ .", "Find $x$.\n", True),
        ("a + b", "a+b", True),
        ("e\u0301t\u00e9", "\u00e9te\u0301", True),
        ("question  3", "question\n3", True),
        ("question 3", "question3", False),
        ("sort 1 23", "sort 12 3", False),
        ("area of $A$", "area of $a$", False),
        ("10²", "102", False),
        ("2 + 3", "2 - 3", False),
    ],
)
def test_questions_are_equal_but_for_white_space(one: str, other: str, same: bool) -> None:
    assert (question_key(one) == question_key(other)) is same


def test_duplicates_stay_once_and_conflicts_go() -> None:
    outcomes = [
        problem("a", "1", "a1"),
        problem("b", "1", "b1"),
        LeftOut("flagged"),
        problem("a ", "1", "a2"),
        problem("b", "2", "b2"),
        problem("b", "1", "b3"),
        problem("c", "3", "c1"),
    ]
    found = gather(outcomes, "here", unique=True)
    assert [p.id for p in found.problems] == ["a1", "c1"]
    assert found.dropped == {"flagged": 1, "duplicate": 1, "conflicting answers": 3}
    assert len(gather(outcomes, "here").problems) == 6


def test_repeated_ids_are_made_unique() -> None:
    ids = ["x", "x#2", "x", "x", "y"]
    found = gather([problem(str(n), id_=id_) for n, id_ in enumerate(ids)], "here")
    assert [p.question for p in found.problems] == ["0", "1", "2", "3", "4"]
    assert [p.id for p in found.problems] == ["x", "x#2", "x#3", "x#4", "y"]


def test_nothing_left_says_why() -> None:
    with pytest.raises(ValueError, match="no problem left in here: it has no rows"):
        gather([], "here")
    with pytest.raises(ValueError, match="no problem left in here: no answer 2, flagged 1"):
        gather([LeftOut("no answer"), LeftOut("flagged"), LeftOut("no answer")], "here")


def by_number(row: Row) -> Problem:
    if row.columns["n"] % 2:
        raise BadRow("odd", "a detail")
    return problem(str(row.columns["n"]))


def test_skipped_rows_are_counted_and_the_first_ones_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [Row(f"f:{n}", {"n": n}) for n in range(16)]
    rows.append(Row("f:16", error=BadRow("not JSON")))
    with caplog.at_level(logging.WARNING):
        found = gather(convert(rows, by_number, "skip"), "f")
    assert found.dropped == {"odd": 8, "not JSON": 1}
    assert len(found.problems) == 8
    (record,) = caplog.records
    assert record.getMessage().startswith("9 bad rows skipped: f:1: odd (a detail); f:3: odd")
    assert record.getMessage().endswith("f:9: odd (a detail); and 4 more")


def test_refused_rows_are_named() -> None:
    with pytest.raises(ValueError, match=r"^f:1: odd \(a detail\)$"):
        list(convert([Row("f:0", {"n": 0}), Row("f:1", {"n": 1})], by_number, "refuse"))
    with pytest.raises(ValueError, match=r"^f:7: not JSON$"):
        list(convert([Row("f:7", error=BadRow("not JSON"))], by_number, "refuse"))


def test_rows_left_out_by_a_setting_are_not_refused() -> None:
    outcomes = convert([Row("f:1")], lambda row: LeftOut("flagged"), "refuse")
    assert list(outcomes) == [LeftOut("flagged")]
