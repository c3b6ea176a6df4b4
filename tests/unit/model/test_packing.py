import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.model.packing import Packed, attention_blocks, length_blocks, pack, split_packs

PROMPTS = st.sampled_from([(1,), (2, 3), (2, 3, 4, 5), (6, 7, 8)])
RESPONSES = st.lists(st.integers(10, 99), max_size=9).map(tuple)
ROWS = st.lists(st.tuples(PROMPTS, RESPONSES), min_size=1, max_size=12)
Rows = list[tuple[tuple[int, ...], tuple[int, ...]]]


def _pack(rows: Rows) -> Packed:
    return pack([prompt for prompt, _ in rows], [response for _, response in rows])


def _sequences(packed: Packed) -> list[list[int]]:
    return [part.tolist() for part in packed.sequence_U.split(packed.lengths)]


def test_a_prompt_stands_once_before_its_responses() -> None:
    packed = pack([[1, 2], [5], [1, 2], [8]], [[3, 4], [6, 7, 9], [7], []])
    assert packed.input_ids_L.tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert packed.position_ids_L.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert packed.predicting_N.tolist() == [1, 2, 3, 4, 5, 1]
    assert _sequences(packed) == [[0, 1, 2], [3, 4, 5], [6]]
    assert packed.tokens == 7
    assert packed.attended_pairs == 6 + 6 + 1


@given(ROWS)
def test_each_response_token_is_predicted_behind_all_tokens_before_it(rows: Rows) -> None:
    packed = _pack(rows)
    ids, positions = packed.input_ids_L.tolist(), packed.position_ids_L.tolist()
    predicting = iter(packed.predicting_N.tolist())
    attended = {place: own[: own.index(place) + 1] for own in _sequences(packed) for place in own}
    for prompt, response in rows:
        whole = [*prompt, *response]
        for t in range(len(response)):
            place = next(predicting)
            assert positions[place] == len(prompt) + t - 1
            assert [ids[before] for before in attended[place]] == whole[: len(prompt) + t]
    assert not list(predicting)


@given(ROWS)
def test_linear_layers_touch_each_prompt_once(rows: Rows) -> None:
    prompts = {prompt for prompt, _ in rows}
    tokens = sum(map(len, prompts)) + sum(max(len(response) - 1, 0) for _, response in rows)
    assert _pack(rows).tokens == tokens


@given(ROWS)
def test_outputs_are_put_back_where_their_tokens_stand(rows: Rows) -> None:
    packed = _pack(rows)
    assert packed.sequence_U[packed.kept_L].tolist() == list(range(packed.tokens))
    blocks = attention_blocks(packed)
    assert blocks.slots_M[blocks.kept_L].tolist() == list(range(packed.tokens))


@given(ROWS)
def test_a_block_row_is_a_sequence_and_padding_behind_it(rows: Rows) -> None:
    packed = _pack(rows)
    blocks = attention_blocks(packed)
    sizes = [count * longest for count, longest in blocks.shapes]
    found = [
        row
        for part, shape in zip(blocks.slots_M.split(sizes), blocks.shapes, strict=True)
        for row in part.view(shape).tolist()
    ]
    wanted = sorted(_sequences(packed), key=len, reverse=True)
    assert len(found) == len(wanted)
    for row, own in zip(found, wanted, strict=True):
        assert row[: len(own)] == own
    real = sum(packed.lengths)
    assert packed.attention_padding == pytest.approx(1 - real / sum(sizes))


def test_blocks_pad_little_and_short_sequences_share_one() -> None:
    assert length_blocks([5, 9, 7]) == [[1, 2, 0]]
    assert length_blocks([1000, 20, 998, 21]) == [[0, 2], [3, 1]]
    lengths = list(range(20, 90))
    blocks = length_blocks(lengths)
    assert sorted(index for block in blocks for index in block) == list(range(70))
    lost = [sum(lengths[block[0]] ** 2 - lengths[i] ** 2 for i in block) for block in blocks]
    assert max(lost) <= 4096
    assert len(blocks) < 14


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(AssertionError, match="a prompt of no tokens"):
        pack([[]], [[1]])
    with pytest.raises(AssertionError, match="no rows"):
        pack([], [])


def test_a_pack_moves_whole() -> None:
    moved = pack([[1, 2]], [[3, 4]]).to(torch.device("meta"))
    tensors = [part for part in vars(moved).values() if isinstance(part, torch.Tensor)]
    assert len(tensors) == 5
    assert all(part.is_meta for part in tensors)


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=40)


def _rows(drawn: list[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of which those with a prompt of the same length share it."""
    return [[prompt] * prompt for prompt, _ in drawn], [[9] * length for _, length in drawn]


def _size(prompts: list[list[int]], responses: list[list[int]], rows: list[int]) -> int:
    return pack([prompts[row] for row in rows], [responses[row] for row in rows]).tokens


@given(SIZES, st.integers(1, 120))
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
