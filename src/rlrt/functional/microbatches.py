"""Splitting sequences into micro-batches that fit in memory."""

from collections.abc import Sequence


def split_by_tokens(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of ``lengths`` in groups whose padded size ``count * longest`` fits ``token_budget``.

    Longest first, so that neighbours in length share a group and little is padded. A sequence longer
    than the budget gets a group of its own.
    """
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * longest <= token_budget:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest = lengths[index]
    return groups
