from collections import Counter

import pytest
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Problem, ProblemSet
from rlrt.data.module import ProblemDataModule, fitting
from rlrt.data.prompts import Prompts


def problems(count: int) -> ProblemSet:
    return ProblemSet(
        tuple(Problem(str(i), f"Compute {i} + 1.", str(i + 1), "t") for i in range(count))
    )


def module(
    count: int = 10, seed: int = 0, per_step: int = 4, per_update: int = 2
) -> ProblemDataModule:
    return ProblemDataModule(problems(count), problems(2), seed, per_step, per_update)


def ids_of(data: ProblemDataModule, steps: range) -> list[str]:
    return [problem.id for step in steps for problem in data.problems_of_step(step)]


def test_a_step_is_a_function_of_seed_and_step() -> None:
    first, second = module(), module()
    assert ids_of(first, range(20)) == ids_of(second, range(20))
    assert [p.id for p in second.problems_of_step(7)] == ids_of(first, range(7, 8))
    assert ids_of(module(seed=1), range(20)) != ids_of(first, range(20))


def test_every_pass_asks_every_problem_once_in_a_new_order() -> None:
    asked = ids_of(module(), range(5))  # 20 questions over 10 problems
    assert Counter(asked[:10]) == Counter(asked[10:]) == Counter(str(i) for i in range(10))
    assert asked[:10] != asked[10:]


def test_a_step_may_ask_more_problems_than_there_are() -> None:
    assert Counter(ids_of(module(count=3, per_step=6), range(1))) == {"0": 2, "1": 2, "2": 2}


def test_over_long_prompts_are_counted_and_left_out(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    given = ProblemSet(
        (Problem("a", "Compute 1 + 1.", "2", "t"), Problem("b", "Compute 1 + 1. " * 50, "2", "t")),
        {"duplicate": 3},
    )
    limit = len(prompts.student_ids("Compute 1 + 1."))
    kept = fitting(given, prompts, limit)
    assert [problem.id for problem in kept.problems] == ["a"]
    assert kept.dropped == {"duplicate": 3, f"prompt over {limit} tokens": 1}


@pytest.mark.parametrize(
    ("count", "per_step", "per_update"),
    [
        pytest.param(0, 4, 2, id="no problem"),
        pytest.param(5, 4, 3, id="a part of an update"),
        pytest.param(5, 0, 1, id="an empty step"),
    ],
)
def test_impossible_sizes_are_refused(count: int, per_step: int, per_update: int) -> None:
    """Of a configuration they are refused before, each in a sentence of its own."""
    with pytest.raises(AssertionError):
        module(count, per_step=per_step, per_update=per_update)


def test_spare_problems_are_the_others_each_once() -> None:
    data = module(count=10, per_step=4)
    spare = [problem.id for problem in data.spare_problems(3)]
    assert sorted(spare + ids_of(data, range(3, 4))) == [str(i) for i in range(10)]
    assert spare == [problem.id for problem in module(count=10, per_step=4).spare_problems(3)]
    orders = {tuple(p.id for p in module(count=60).spare_problems(step))[:3] for step in range(5)}
    assert len(orders) == 5
