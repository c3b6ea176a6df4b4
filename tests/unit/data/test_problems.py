import logging
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import Problem, ProblemSet
from rlrt.data.problems import (
    LeftOut,
    convert,
    gather,
    question_key,
    split_held_out,
)
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


def problems(questions: list[str]) -> ProblemSet:
    return ProblemSet(tuple(Problem(str(n), q, "1", "test") for n, q in enumerate(questions)))


def keys(part: ProblemSet) -> set[str]:
    return {question_key(problem.question) for problem in part.problems}


# Few letters and spaces, so that duplicates in all their spellings are common.
QUESTIONS = st.lists(st.text("ab +", min_size=1, max_size=6), min_size=2, max_size=30)


@given(QUESTIONS, st.integers(0, 5), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_share_is_disjoint_complete_and_independent_of_the_row_order(
    questions: list[str], count: int, seed: int, random: Random
) -> None:
    distinct = keys(problems(questions))
    count = min(count, len(distinct) - 1)
    train, held_out = split_held_out(problems(questions), None, count, seed)
    assert len(keys(held_out)) == count
    assert not keys(train) & keys(held_out)
    assert sorted(p.question for p in train.problems + held_out.problems) == sorted(questions)
    assert train.dropped.get("held out", 0) == len(held_out.problems)

    shuffled = random.sample(questions, len(questions))
    train_again, held_out_again = split_held_out(problems(shuffled), None, count, seed)
    assert keys(held_out_again) == keys(held_out)
    assert keys(train_again) == keys(train)


@given(QUESTIONS, QUESTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_held_out_file_is_never_trained_on(
    questions: list[str], tested: list[str], count: int, random: Random
) -> None:
    if not keys(problems(questions)) - keys(problems(tested)):
        return
    train, held_out = split_held_out(problems(questions), problems(tested), count, 0)
    assert keys(train) == keys(problems(questions)) - keys(problems(tested))
    assert len(keys(held_out)) == min(count, len(keys(problems(tested))))
    assert len(train.problems) + train.dropped.get("also held out", 0) == len(questions)
    assert len(held_out.problems) + held_out.dropped.get("beyond held_out_problems", 0) == len(
        tested
    )
    shuffled = random.sample(tested, len(tested))
    assert keys(split_held_out(problems(questions), problems(shuffled), count, 0)[1]) == keys(
        held_out
    )


def test_the_seed_chooses_and_the_order_of_rows_stays() -> None:
    source = problems([f"question {n}" for n in range(100)])
    parts = {seed: split_held_out(source, None, 20, seed)[1] for seed in (0, 0, 1)}
    assert keys(parts[0]) != keys(parts[1])
    assert [int(p.id) for p in parts[0].problems] == sorted(int(p.id) for p in parts[0].problems)


@pytest.mark.parametrize(("rows", "expected"), [(5, 0), (30, 3), (2000, 128)])
def test_a_tenth_is_held_out_by_default(rows: int, expected: int) -> None:
    train, held_out = split_held_out(
        problems([f"question {n}" for n in range(rows)]), None, None, 0
    )
    assert (len(train.problems), len(held_out.problems)) == (rows - expected, expected)


def test_all_of_a_held_out_file_by_default() -> None:
    tested = problems(["b", "c"])
    assert split_held_out(problems(["a"]), tested, None, 0) == (problems(["a"]), tested)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.held_out_problems is 2, .* only 2 .*: 0 to 1"):
        split_held_out(problems(["a", "b", "b "]), None, 2, 0)
    with pytest.raises(ValueError, match=r"data\.held_out_path"):
        split_held_out(problems(["a"]), problems(["a", "b"]), None, 0)
