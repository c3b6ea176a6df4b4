from hypothesis import given
from hypothesis import strategies as st

from rlrt.functional.microbatches import split_by_tokens


@given(st.lists(st.integers(1, 40)), st.integers(1, 120))
def test_every_sequence_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = split_by_tokens(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[index] for index in group)
        assert padded <= budget or len(group) == 1


def test_neighbours_in_length_share_a_group() -> None:
    assert split_by_tokens([2, 9, 3, 8], 18) == [[1, 3], [2, 0]]
