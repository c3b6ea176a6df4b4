"""Prompts and responses of uneven length in one row without padding, and how rows are split into packs.

Rollouts of one prompt share one copy of it. The shift between a token and the position that predicts it
happens here alone (``Packed.predicting_N``). More dimensions: U tokens of all attended sequences one
after the other, a shared prompt counted once for each of them; M slots of the attention blocks, padding
included.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from rlrt.batch import Ids, as_array


def joined(sequences: Sequence[Ids]) -> Tensor:
    """The ids of all sequences one after the other, long, on the CPU."""
    arrays = [as_array(ids) for ids in sequences] or [
        np.empty(0, np.int32)
    ]  # it takes no empty list
    return torch.from_numpy(np.concatenate(arrays, dtype=np.int64))


def rows_by_prompt(prompts: Sequence[Ids]) -> list[list[int]]:
    """The rows of each prompt, in the order in which prompts come first. A shared object is read once."""
    keys: dict[int, bytes] = {}
    rows_of: dict[bytes, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if id(prompt) not in keys:
            keys[id(prompt)] = as_array(prompt).tobytes()
        rows_of.setdefault(keys[id(prompt)], []).append(row)
    return list(rows_of.values())


CALL_PAIRS = 4096  # query-key pairs that one more attention call costs as much as (measured on CPU)


@dataclass(frozen=True)
class Packed:
    """Prompts and responses in one row, and who attends to whom.

    A prompt is followed by its responses, each without its last token, whose output predicts nothing.
    Attention runs within sequences of a prompt and one response; ``sequence_U`` names their tokens.
    """

    input_ids_L: Tensor
    position_ids_L: Tensor  # a response counts on from its prompt
    predicting_N: Tensor  # where each response token is predicted; row by row, t ascending
    sequence_U: Tensor  # position in the pack of each token of each sequence
    kept_L: Tensor  # position in U whose attention output is the token's; the first for a prompt
    lengths: tuple[int, ...]  # of the sequences, in the order of U

    @property
    def tokens(self) -> int:
        """Tokens that the linear layers touch."""
        return len(self.input_ids_L)

    @property
    def attended_pairs(self) -> int:
        """Query-key pairs of causal attention, padding apart."""
        return sum(n * (n + 1) // 2 for n in self.lengths)

    @property
    def attention_padding(self) -> float:
        """Share of padding among the slots of ``attention_blocks``, 0 .. 1; other kernels pad nothing."""
        slots = sum(len(block) * self.lengths[block[0]] for block in length_blocks(self.lengths))
        return 1 - len(self.sequence_U) / slots

    def to(self, device: torch.device) -> "Packed":
        """The same pack with its tensors on ``device``."""
        return replace(
            self,
            input_ids_L=self.input_ids_L.to(device),
            position_ids_L=self.position_ids_L.to(device),
            predicting_N=self.predicting_N.to(device),
            sequence_U=self.sequence_U.to(device),
            kept_L=self.kept_L.to(device),
        )


@dataclass(frozen=True)
class AttentionBlocks:
    """Sequences of similar length side by side, padded on the right to the longest of their block."""

    slots_M: (
        Tensor  # position in the pack; padding names the first token, and nothing reads its output
    )
    kept_L: Tensor  # slot whose output is the token's
    shapes: tuple[tuple[int, int], ...]  # sequences and padded length of each block, in order of M


def pack(prompts: Sequence[Ids], responses: Sequence[Ids]) -> Packed:
    """One row of all rows' tokens, on the CPU; rows of equal prompts share one copy of the prompt.

    An empty response adds nothing but its prompt. There must be a row, and no prompt may be empty.
    """
    assert len(prompts), "a pack of no rows"
    assert all(len(prompt) for prompt in prompts), "a prompt of no tokens predicts nothing"
    ids_L, starts, sequences = _laid_out(prompts, responses)
    prompt_sizes = torch.tensor([len(prompt) for prompt in prompts])
    lengths = torch.tensor([len(response) for response in responses])
    starts_B2 = torch.tensor(starts)  # of each row: its prompt, its response
    sizes = torch.stack([prompt_sizes, (lengths - 1).clamp(min=0)], dim=1)
    sequence_U = _ranges(starts_B2[sequences], sizes[sequences])
    total_S = sizes[sequences].sum(1)
    kept_L = _first_places(sequence_U, len(ids_L))
    return Packed(
        input_ids_L=ids_L,
        position_ids_L=_ranges(torch.zeros_like(total_S), total_S)[kept_L],
        predicting_N=_ranges(
            starts_B2 + torch.stack([prompt_sizes - 1, torch.zeros_like(prompt_sizes)], dim=1),
            torch.stack([lengths.clamp(max=1), sizes[:, 1]], dim=1),
        ),
        sequence_U=sequence_U,
        kept_L=kept_L,
        lengths=tuple(total_S.tolist()),
    )


def _laid_out(
    prompts: Sequence[Ids], responses: Sequence[Ids]
) -> tuple[Tensor, list[tuple[int, int]], list[int]]:
    """The ids of a pack, where each row's prompt and response start in it, and the rows that attend: a
    response of less than two tokens adds nothing to its prompt.
    """
    parts: list[Ids] = []
    end = 0
    starts = [(0, 0)] * len(prompts)
    sequences: list[int] = []
    for rows in rows_by_prompt(prompts):
        start, prompt = end, prompts[rows[0]]
        parts.append(prompt)
        end += len(prompt)
        for row in rows:
            starts[row] = start, end
            parts.append(responses[row][:-1])
            end += len(parts[-1])
        sequences.extend([row for row in rows if len(responses[row]) > 1] or rows[:1])
    return joined(parts), starts, sequences


def attention_blocks(packed: Packed) -> AttentionBlocks:
    """The pack's sequences in few blocks with little padding, on the pack's device."""
    blocks = length_blocks(packed.lengths)
    shapes = tuple((len(block), packed.lengths[block[0]]) for block in blocks)
    ends = list(accumulate((rows * longest for rows, longest in shapes), initial=0))
    starts = [0] * len(packed.lengths)  # the slot of each sequence's first token
    for block, start in zip(blocks, ends, strict=False):
        for place, sequence in enumerate(block):
            starts[sequence] = start + place * packed.lengths[block[0]]
    slot_U = _ranges(torch.tensor(starts), torch.tensor(packed.lengths))
    slot_U = slot_U.to(packed.sequence_U.device)
    slots_M = packed.sequence_U.new_zeros(ends[-1])
    slots_M[slot_U] = packed.sequence_U
    return AttentionBlocks(slots_M=slots_M, kept_L=slot_U[packed.kept_L], shapes=shapes)


def length_blocks(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of ``lengths`` in blocks, longest first, that are padded to their first one.

    A block ends where the pairs of query and key lost to its padding cost more than another call.
    """
    blocks: list[list[int]] = []
    longest = lost = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        lost += longest**2 - lengths[index] ** 2
        if blocks and lost <= CALL_PAIRS:
            blocks[-1].append(index)
        else:
            blocks.append([index])
            longest, lost = lengths[index], 0
    return blocks


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """``start .. start + length - 1`` of each pair, one after the other."""
    starts, lengths = starts.flatten(), lengths.flatten()
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)


def _first_places(values_U: Tensor, count: int) -> Tensor:
    """Where each of 0 .. count-1 stands first in ``values_U``."""
    places_U = torch.arange(len(values_U))
    return places_U.new_full((count,), len(values_U)).scatter_reduce(0, values_U, places_U, "amin")


def split_packs(
    prompts: Sequence[Ids], responses: Sequence[Ids], token_budget: int
) -> list[list[int]]:
    """Rows of each micro-batch, ascending, such that its ``pack`` has at most ``token_budget`` tokens.

    Rows of one prompt stay together where they fit, and are spread evenly where not. A row longer than
    the budget gets a micro-batch of its own; those come first.
    """
    pieces: list[list[int]] = []
    sizes: list[int] = []
    for rows in rows_by_prompt(prompts):
        prompt = prompts[rows[0]]
        own = [max(len(responses[row]) - 1, 0) for row in rows]
        for piece in _balanced(own, token_budget - len(prompt)):
            pieces.append([rows[index] for index in piece])
            sizes.append(len(prompt) + sum(own[index] for index in piece))
    return [
        sorted(row for piece in chosen for row in pieces[piece])
        for chosen in _balanced(sizes, token_budget)
    ]


def _balanced(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``sizes`` in few bins of at most ``capacity``, of similar sums; a larger one is apart."""
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    oversized = [[index] for index in order if sizes[index] > capacity]
    rest = order[len(oversized) :]
    full = _best_fit(sizes, rest, capacity)
    even = _evenly(sizes, rest, len(full))
    fits = all(sum(sizes[index] for index in chosen) <= capacity for chosen in even)
    return oversized + (even if fits else full)


def _best_fit(sizes: Sequence[int], order: Sequence[int], capacity: int) -> list[list[int]]:
    """Few bins of at most ``capacity``: each index goes where the least is left over."""
    bins: list[list[int]] = []
    left: list[tuple[int, int]] = []  # capacity of each bin and its number, least capacity first
    for index in order:
        place = bisect_left(left, (sizes[index], 0))
        if place == len(left):
            bins.append([])
            left.append((capacity, len(bins) - 1))
        free, chosen = left.pop(place)
        bins[chosen].append(index)
        insort(left, (free - sizes[index], chosen))
    return bins


def _evenly(sizes: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    """``count`` bins of similar sums: each index goes to the emptiest."""
    bins: list[list[int]] = [[] for _ in range(count)]
    sums = [(0, number) for number in range(count)]
    heapify(sums)
    for index in order:
        total, chosen = sums[0]
        bins[chosen].append(index)
        heapreplace(sums, (total + sizes[index], chosen))
    return bins
