"""Small worlds that are known whole: a tree of tokens, a student at every node, success at every leaf.

W worlds side by side, with V tokens and responses of D tokens. A node of depth d is a prefix of d tokens;
the students of that depth are ``[W, V^d, V]``, the leaves ``[W, V^D]`` hold the probability that a whole
response counts as correct.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def success_after_tokens(students: Sequence[Tensor], leaves: Tensor) -> list[Tensor]:
    """``f`` at every depth, each like that depth's students, by dynamic programming from the leaves."""
    found = [leaves.reshape(students[-1].shape)]
    for depth in range(len(students) - 1, 0, -1):
        rates = (students[depth] * found[0]).sum(-1)
        found.insert(0, rates.reshape(students[depth - 1].shape))
    return found


def teachers_by_bayes(students: Sequence[Tensor], leaves: Tensor) -> list[Tensor]:
    """``P_T`` at every depth from the posterior over whole responses, given that they are correct.

    Every response is weighed by its probability and its success, and a token's share is that of the
    responses that go on with it; no f is used. NaN below prefixes from which nothing succeeds.
    """
    responses = torch.ones_like(students[0][:, :, 0])
    for student in students:
        responses = (responses[..., None] * student).flatten(1)
    posterior = responses * leaves
    found = []
    for student in students:
        weights = posterior.reshape(*student.shape, -1).sum(-1)
        found.append(weights / weights.sum(-1, keepdim=True))
    return found
