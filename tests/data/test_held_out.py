from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import Problem, ProblemSet
from rlrt.data.held_out import check_held_out_problems, split
from rlrt.data.questions import question_key


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
    train, held_out = split(problems(questions), None, count, seed)
    assert len(keys(held_out)) == count
    assert not keys(train) & keys(held_out)
    assert sorted(p.question for p in train.problems + held_out.problems) == sorted(questions)
    assert train.dropped.get("held out", 0) == len(held_out.problems)

    shuffled = random.sample(questions, len(questions))
    train_again, held_out_again = split(problems(shuffled), None, count, seed)
    assert keys(held_out_again) == keys(held_out)
    assert keys(train_again) == keys(train)


@given(QUESTIONS, QUESTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_held_out_file_is_never_trained_on(
    questions: list[str], tested: list[str], count: int, random: Random
) -> None:
    if not keys(problems(questions)) - keys(problems(tested)):
        return
    train, held_out = split(problems(questions), problems(tested), count, 0)
    assert keys(train) == keys(problems(questions)) - keys(problems(tested))
    assert len(keys(held_out)) == min(count, len(keys(problems(tested))))
    assert len(train.problems) + train.dropped.get("also held out", 0) == len(questions)
    assert len(held_out.problems) + held_out.dropped.get("beyond held_out_problems", 0) == len(
        tested
    )
    shuffled = random.sample(tested, len(tested))
    assert keys(split(problems(questions), problems(shuffled), count, 0)[1]) == keys(held_out)


def test_the_seed_chooses_and_the_order_of_rows_stays() -> None:
    source = problems([f"question {n}" for n in range(100)])
    parts = {seed: split(source, None, 20, seed)[1] for seed in (0, 0, 1)}
    assert keys(parts[0]) != keys(parts[1])
    assert [int(p.id) for p in parts[0].problems] == sorted(int(p.id) for p in parts[0].problems)


@pytest.mark.parametrize(("rows", "expected"), [(5, 0), (30, 3), (2000, 128)])
def test_a_tenth_is_held_out_by_default(rows: int, expected: int) -> None:
    train, held_out = split(problems([f"question {n}" for n in range(rows)]), None, None, 0)
    assert (len(train.problems), len(held_out.problems)) == (rows - expected, expected)


def test_all_of_a_held_out_file_by_default() -> None:
    tested = problems(["b", "c"])
    assert split(problems(["a"]), tested, None, 0) == (problems(["a"]), tested)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.held_out_problems is 2, .* only 2 .*: 0 to 1"):
        split(problems(["a", "b", "b "]), None, 2, 0)
    with pytest.raises(ValueError, match=r"data\.held_out_path"):
        split(problems(["a"]), problems(["a", "b"]), None, 0)


@pytest.mark.parametrize("count", [-1, 1.5, True, "3"])
def test_what_is_no_number_of_problems_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.held_out_problems is .*; allowed"):
        check_held_out_problems(count)
