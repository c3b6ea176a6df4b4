import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrt.data.arithmetic import STYLES, Arithmetic, write_solution
from rlrt.data.problems import optional_fields

SUMS = st.lists(st.integers(1, 99), min_size=2, max_size=8)


def terms_of(question: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", question)]


def box_of(solution: str) -> int:
    (boxed,) = re.findall(r"\\boxed\{(\d+)\}$", solution)
    return int(boxed)


def steps_of(solution: str) -> list[tuple[int, int]]:
    """What each step should come to, and what it says; sums in words start at their first line."""
    steps, total = [], 0
    for line in solution.split("\n"):
        if match := re.fullmatch(r"Start at (\d+)", line):
            total = int(match[1])
        elif match := re.fullmatch(r"Add (\d+): (\d+)", line):
            steps.append((total + int(match[1]), int(match[2])))
            total = int(match[2])
        elif match := re.fullmatch(r"([\d+]+)=(\d+)", line):
            steps.append((sum(map(int, match[1].split("+"))), int(match[2])))
        else:
            assert re.fullmatch(r"\\boxed\{\d+\}|Wait, let me reconsider\.", line), line
    return steps


def test_same_seed_same_problems_and_another_seed_others() -> None:
    first, again, other = (Arithmetic(seed, 50, 20) for seed in (3, 3, 4))
    assert first.train() == again.train()
    assert first.held_out() == again.held_out()
    assert first.train() != other.train()
    assert first.held_out() != other.held_out()


def test_a_larger_part_starts_with_the_smaller_one() -> None:
    small, large = Arithmetic(0, 20, 10).train(), Arithmetic(0, 40, 30).train()
    assert large.problems[:20] == small.problems


def test_problems_are_distinct_and_their_answers_right() -> None:
    data = Arithmetic(0, 400, 200, terms=[2, 5], largest=30)
    assert (
        data.provides
        == {"solution"}
        == optional_fields(data.train())
        == optional_fields(data.held_out())
    )
    for part, count in ((data.train(), 400), (data.held_out(), 200)):
        assert len({problem.id for problem in part.problems}) == count
        assert len({problem.question for problem in part.problems}) == count
        for problem in part.problems:
            terms = terms_of(problem.question)
            assert problem.question == f"Compute {' + '.join(map(str, terms))}."
            assert len(terms) in (2, 5)
            assert all(1 <= term <= 30 for term in terms)
            assert problem.answer == str(sum(terms))
            assert problem.solution is not None
            assert box_of(problem.solution) == sum(terms)


@given(seeds=st.tuples(st.integers(), st.integers()), largest=st.integers(8, 40))
@settings(max_examples=30, deadline=None)
def test_no_held_out_sum_is_trained_on_in_any_order(seeds: tuple[int, int], largest: int) -> None:
    train = Arithmetic(seeds[0], 300, 1, terms=[3], largest=largest).train()
    held_out = Arithmetic(seeds[1], 1, 20, terms=[3], largest=largest).held_out()
    trained = {tuple(sorted(terms_of(problem.question))) for problem in train.problems}
    assert not trained & {tuple(sorted(terms_of(p.question))) for p in held_out.problems}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train_problems", 0),
        ("held_out_problems", -1),
        ("terms", []),
        ("terms", [3, 1]),
        ("terms", [9]),
        ("largest", 1),
        ("largest", 10_000),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting: str, value: object) -> None:
    arguments = {"seed": 0, "train_problems": 4, "held_out_problems": 4, setting: value}
    with pytest.raises(ValueError, match=rf"{setting} is .*allowed: "):
        Arithmetic(**arguments)  # type: ignore[arg-type]


def test_asking_for_more_sums_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="train_problems is 500; allowed: about"):
        Arithmetic(0, 500, 1, terms=[2], largest=10)


@given(terms=SUMS, style=st.sampled_from(sorted(STYLES)))
def test_without_slips_every_step_and_the_box_are_right(terms: list[int], style: str) -> None:
    solution = write_solution(terms, style)
    steps = steps_of(solution)
    assert len(steps) == len(terms) - 1
    assert all(should == said for should, said in steps)
    assert box_of(solution) == sum(terms)


@given(terms=SUMS, style=st.sampled_from(sorted(STYLES)), seed=st.integers())
def test_a_slip_is_carried_onward(terms: list[int], style: str, seed: int) -> None:
    solution = write_solution(terms, style, slip_rate=0.5, rng=Random(seed))
    misses = [said - should for should, said in steps_of(solution)]
    assert box_of(solution) == sum(terms) + sum(misses)
    assert set(misses) <= {0, -1, 1, -2, 2, -10, 10}


def test_slips_come_at_their_rate() -> None:
    rng = Random(0)
    texts = [write_solution([7, 12, 15, 5], "in_order", 0.25, rng=rng) for _ in range(2000)]
    misses = [should != said for text in texts for should, said in steps_of(text)]
    # Four standard errors of 6000 draws at 0.25 are 0.022.
    assert sum(misses) / len(misses) == pytest.approx(0.25, abs=0.025)


@given(terms=SUMS, seed=st.integers())
def test_a_repaired_slip_does_no_harm(terms: list[int], seed: int) -> None:
    solution = write_solution(terms, "in_order", 0.5, repair_rate=1.0, rng=Random(seed))
    wrong = sum(should != said for should, said in steps_of(solution))
    assert solution.count("Wait, let me reconsider.") == wrong
    assert box_of(solution) == sum(terms)


def test_styles_write_the_same_sum_differently() -> None:
    solutions = {style: write_solution([7, 12, 15, 5], style) for style in STYLES}
    assert len(set(solutions.values())) == len(STYLES)
    assert solutions["last_pair_apart"] == "7+12=19\n15+5=20\n19+20=39\n\\boxed{39}"
    assert solutions["through_tens"] == "7+10+2=19\n19+10+5=34\n34+5=39\n\\boxed{39}"
