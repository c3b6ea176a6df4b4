"""Splitting rows into micro-batches that fit in memory and are of similar size."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapify, heapreplace

from rlrt.functional.ids import Ids, rows_by_prompt


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


def _balanced(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Indices of ``sizes`` in few bins of at most ``room``, of similar sums; one above it is alone."""
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    alone = [[index] for index in order if sizes[index] > room]
    rest = order[len(alone) :]
    full = _best_fit(sizes, rest, room)
    even = _evenly(sizes, rest, len(full))
    fits = all(sum(sizes[index] for index in chosen) <= room for chosen in even)
    return alone + (even if fits else full)


def _best_fit(sizes: Sequence[int], order: Sequence[int], room: int) -> list[list[int]]:
    """Few bins of at most ``room``: each index goes where the least is left over."""
    bins: list[list[int]] = []
    left: list[tuple[int, int]] = []  # room of each bin and its number, least room first
    for index in order:
        place = bisect_left(left, (sizes[index], 0))
        if place == len(left):
            bins.append([])
            left.append((room, len(bins) - 1))
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
