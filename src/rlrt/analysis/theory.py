"""Lemma 1 and Theorem 2 of arXiv:2605.10781 at every node of worlds that are known whole.

The statements and their proofs stand in ``rlrt.functional.bayesian_teacher``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlrt.functional.bayesian_teacher import (
    disagreement,
    divergence,
    influence,
    success_rate,
)
from rlrt.functional.token_tree import success_after_tokens, teachers_by_bayes

KINDS = {  # of worlds, in order of drawing
    "any": "any student, any success",
    "sparse": "success 0 or 1 at the end",
    "near": "success nearly sure, all tokens alike",
    "pairs": "two tokens of 1/2, one a little worse",
}
ROUNDING = 1e-20  # of Inf² and D̄ in float64, where both are 0


@dataclass(frozen=True)
class Checked:
    """Every node of some worlds where success is possible: N values of each.

    ``lemma_gap`` is the largest difference between ``D̂`` of the posterior over whole responses and
    Lemma 1's, over the tokens of a node, relative where ``|D̂| > 1``.
    """

    rate: Tensor
    influence: Tensor
    divergence: Tensor
    lemma_gap: Tensor


FIELDS = tuple(Checked.__annotations__)


def make_worlds(
    kind: str, count: int, vocabulary: int, depth: int, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Students and leaves of ``count`` worlds, as in ``rlrt.functional.token_tree``."""
    if kind == "pairs":
        vocabulary = 2
    sizes = [(count, vocabulary**d) for d in range(depth)]
    # from nearly deterministic students to nearly uniform ones
    peaks = [10 ** rng.uniform(-1, 1, (*size, 1)) for size in sizes]
    draws = [rng.standard_gamma(np.broadcast_to(p, (*p.shape[:2], vocabulary))) for p in peaks]
    students = [torch.from_numpy((g + 1e-12) / (g + 1e-12).sum(-1, keepdims=True)) for g in draws]
    shape = (count, vocabulary**depth)
    loss = 10 ** rng.uniform(-4, 0, (count, 1))  # how far from sure success
    leaves = {
        "any": rng.beta(0.5, 0.5, shape),
        "sparse": (rng.random(shape) < rng.random((count, 1))) * 1.0,
        "near": 1 - loss * rng.random(shape),
        "pairs": 1 - loss * (np.arange(shape[1]) % 2),
    }[kind]
    if kind == "pairs":
        students = [torch.full_like(student, 0.5) for student in students]
    return students, torch.from_numpy(np.asarray(leaves, dtype=np.float64))


def check_worlds(students: Sequence[Tensor], leaves: Tensor) -> Checked:
    """Lemma 1 and both sides of Theorem 2 at every node from which something succeeds."""
    found: list[Checked] = []
    successes = success_after_tokens(students, leaves)
    for student, success, teacher in zip(
        students, successes, teachers_by_bayes(students, leaves), strict=True
    ):
        rate = success_rate(student, success)
        # a prefix that is never written has no posterior
        kept = (rate > 0) & ~teacher.isnan().any(-1)
        s, f, t = student[kept], success[kept], teacher[kept]
        lemma = disagreement(s, f)
        gap = (s.log() - t.log() - lemma).abs() / lemma.abs().clamp(min=1)
        # the lemma is of tokens that the student may choose; where f is 0 both sides are infinite
        gap = gap.masked_fill((s == 0) | ((f == 0) & (t == 0)), 0.0)
        found.append(Checked(rate[kept], influence(s, f), divergence(s, f), gap.amax(-1)))
    return Checked(*(torch.cat([getattr(part, name) for part in found]) for name in FIELDS))


def world_summary(parts: Sequence[Checked]) -> dict[str, float]:
    """Over all nodes: how many, at how many D̄ is infinite, the largest ``lemma_gap``, at how many Theorem 2
    is broken by more than rounding, and the largest ``Inf² / (2 D̄)``.
    """
    found = [torch.cat([getattr(part, name) for part in parts]) for name in FIELDS]
    _, inf, divergence, gap = found
    ratio = inf.square() / (2 * divergence)
    ratio = ratio[divergence > ROUNDING]
    return {
        "nodes": len(inf),
        "infinite": int(divergence.isinf().sum()),
        "gap": max(gap.tolist(), default=0.0),
        "broken": int((inf.square() > 2 * divergence * (1 + 1e-9) + ROUNDING).sum()),
        "ratio": max(ratio.tolist(), default=0.0),
    }


def world_rows(kind: str, checked: Checked, most: int) -> list[dict[str, Any]]:
    """At most so many nodes, evenly spread, as rows of a figure; none where D̄ is 0 or infinite."""
    drawable = (checked.divergence.isfinite() & (checked.divergence > 0)).nonzero()[:, 0]
    chosen = drawable[:: max(1, math.ceil(len(drawable) / most))]
    columns = (checked.rate, checked.influence, checked.divergence, checked.lemma_gap)
    values = torch.stack([column[chosen] for column in columns], 1)
    return [
        {"panel": "world", "kind": kind, "success_rate": f, "influence": i, "divergence": d, "lemma_gap": g}
        for f, i, d, g in values.tolist()
    ]  # fmt: skip
