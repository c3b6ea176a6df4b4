from hypothesis import given
from hypothesis import strategies as st

from rlrt.functional.microbatches import split_packs
from rlrt.functional.packing import pack

ROWS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=40)


def _rows(drawn: list[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of which those with a prompt of the same length share it."""
    return [[prompt] * prompt for prompt, _ in drawn], [[9] * length for _, length in drawn]


def _size(prompts: list[list[int]], responses: list[list[int]], rows: list[int]) -> int:
    return pack([prompts[row] for row in rows], [responses[row] for row in rows]).tokens


@given(ROWS, st.integers(1, 120))
def test_every_row_once_and_within_the_budget(drawn: list[tuple[int, int]], budget: int) -> None:
    prompts, responses = _rows(drawn)
    parts = split_packs(prompts, responses, budget)
    assert sorted(row for rows in parts for row in rows) == list(range(len(drawn)))
    for rows in parts:
        assert rows == sorted(rows)
        assert _size(prompts, responses, rows) <= budget or len(rows) == 1


def test_a_group_that_fits_stays_together() -> None:
    prompts = [[1, 2], [3, 4], [1, 2], [3, 4]]
    parts = split_packs(prompts, [[7] * 5, [7] * 4, [7] * 5, [7] * 4], 10)
    assert sorted(parts) == [[0, 2], [1, 3]]


def test_a_group_that_does_not_fit_is_split_evenly() -> None:
    parts = split_packs([[1, 2, 3]] * 8, [[7] * 11] * 8, 3 + 7 * 10)
    assert sorted(map(len, parts)) == [4, 4]  # and not 7 and 1


def test_micro_batches_are_of_similar_size() -> None:
    responses = [[7] * length for length in (90, 10, 20, 40, 40, 30, 50, 10)]
    prompts = [[row] for row in range(8)]
    sizes = [_size(prompts, responses, rows) for rows in split_packs(prompts, responses, 160)]
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) <= 10


def test_a_row_longer_than_the_budget_is_alone() -> None:
    parts = split_packs([[1], [2], [3]], [[7] * 3, [7] * 30, [7] * 3], 10)
    assert parts == [[1], [0, 2]]


def test_rows_may_be_few_and_responses_empty() -> None:
    assert split_packs([], [], 4) == []
    assert split_packs([[1, 2], [1, 2]], [[], []], 2) == [[0, 1]]
