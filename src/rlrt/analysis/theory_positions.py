"""Theorem 2 of arXiv:2605.10781 at positions of real responses, where f is estimated by sampling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from rlrt.batch import Rollout
from rlrt.functional.bayesian_teacher import divergence, influence, success_rate
from rlrt.loss.divergences import kl
from rlrt.model.fused_head import Read

Row = dict[str, Any]
REAL = "teacher_divergence"


def reading(tokens: int) -> Read:
    """For ``rlrt.model.comparison.compare``: each position's likeliest ``tokens`` ids of the student with
    their probabilities, the student's entropy, and D̄ (nats).
    """

    def read(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
        probs_nV = student_nV.softmax(-1)
        top = probs_nV.topk(min(tokens, probs_nV.shape[-1]))
        return {
            "ids": top.indices,
            "student": top.values,
            "entropy": torch.special.entr(probs_nV).sum(-1),
            "divergence": kl(student_nV, teacher_nV),
        }

    return read


class Place(NamedTuple):
    """A position to look at: its rollout, the row of that in the step's records, its candidate tokens
    with their probabilities, and D̄ in nats.
    """

    row: int
    rollout: Rollout
    position: int
    ids: tuple[int, ...]
    student_K: Tensor
    divergence: float

    def ids_with(self, rank: int) -> tuple[int, ...]:
        """The response up to here, and the candidate."""
        return (*self.rollout.response.ids[: self.position].tolist(), self.ids[rank])


class Start(NamedTuple):
    """A candidate token of a place, by its rank, and the number of a continuation behind it."""

    place: int
    rank: int
    sample: int


def tally(
    places: Sequence[Place], starts: Sequence[Start], right: Sequence[bool], samples: int
) -> list[Tensor]:
    """Of each place the correct ends behind each token, ``[halves of the samples, tokens]``."""
    counts = [torch.zeros(2, len(place.ids)) for place in places]
    for start, ended_right in zip(starts, right, strict=True):
        counts[start.place][int(2 * start.sample >= samples), start.rank] += ended_right
    return counts


def hesitations(
    rows: Sequence[int],
    rollouts: Sequence[Rollout],
    compared: Sequence[Mapping[str, Tensor]],
    least_entropy: float,
) -> list[Place]:
    """Positions of ``rollouts[row]`` for these rows, compared with ``reading``, where the student's entropy
    is at least so many nats.
    """
    return [
        Place(
            row,
            rollouts[row],
            position,
            tuple(values["ids"][position].tolist()),
            values["student"][position],
            float(values["divergence"][position]),
        )
        for row, values in zip(rows, compared, strict=True)
        if values
        for position in (values["entropy"] >= least_entropy).nonzero()[:, 0].tolist()
    ]


@dataclass(frozen=True)
class Sampled:
    """A position of a real response, and how its likeliest K tokens went on.

    ``student_K`` are probabilities over the whole vocabulary; ``right_2K`` counts correct ends in two
    halves of ``samples`` continuations (even) behind each token; ``teacher_divergence`` is D̄ of the
    real teacher view in nats.
    """

    rollout: int
    position: int
    student_K: Tensor
    right_2K: Tensor
    samples: int
    teacher_divergence: float


def estimate(sampled: Sampled) -> dict[str, Any]:
    """Both sides of Theorem 2 at a position, in the world where the token is one of the K.

    Given one of the K, a Bayesian teacher stays Bayesian, so the theorem holds there too; f outside of
    them is not asked for. f is ``(right + 1/2) / (samples + 1)``, never 0, for D̄ would be infinite.
    ``influence`` is biased upwards, for it counts noise as difference.
    ``influence_low`` takes each token's sign of f - f̄ from one half and its value from the other: its
    expectation is never above Inf. ``influence_error`` is the standard error, the signs held fixed.
    """
    student = sampled.student_K.double()
    student = student / student.sum()
    right_2K = sampled.right_2K.double()
    halves = right_2K / (sampled.samples / 2)
    success = (right_2K.sum(0) + 0.5) / (sampled.samples + 1)
    centred = halves - success_rate(student, halves)[:, None]
    crossed = (
        student * centred[0] * centred[1].sign() + student * centred[1] * centred[0].sign()
    ) / 2
    signs = (success - success_rate(student, success)).sign()
    # Inf = Σ P_S sign (f - f̄) = Σ P_S (sign - mean sign) f is linear in f
    slopes = student * (signs - (student * signs).sum())
    error = (slopes.square() * success * (1 - success) / sampled.samples).sum().sqrt()
    return {
        "panel": "policy",
        "rollout": sampled.rollout,
        "position": sampled.position,
        "tokens": len(student),
        "covered": float(sampled.student_K.sum()),
        "success_rate": float(success_rate(student, success)),
        "influence": float(influence(student, success)),
        "influence_low": float(crossed.sum()),
        "influence_error": float(error),
        "divergence": float(divergence(student, success)),
        "teacher_divergence": sampled.teacher_divergence,
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> Row:
    """What the positions came to: shares of them and medians over them.

    ``holds``: ``Inf² ≤ 2 D̄`` with D̄ of the real teacher, also with the low estimate of Inf;
    ``broken``: even that estimate less two standard errors is above the bound. ``ratio`` is
    ``Inf² / (2 D̄)`` where D̄ > 0; ``rank`` is Spearman's correlation of Inf with D̄ (NaN where one of
    them is the same everywhere). Each with the real teacher and with the Bayesian one of the estimated f.
    """

    def share(influences: Sequence[float]) -> float:
        pairs = zip(influences, rows, strict=True)
        return sum(max(i, 0.0) ** 2 <= 2 * row[REAL] for i, row in pairs) / len(rows)

    certain = [row["influence_low"] - 2 * row["influence_error"] for row in rows]
    return {
        "positions": len(rows),
        "covered": median(row["covered"] for row in rows),
        "holds": share([row["influence"] for row in rows]),
        "holds_low": share([row["influence_low"] for row in rows]),
        "broken": 1 - share(certain),
        "divergence": median(row["divergence"] for row in rows),
        "divergence_real": median(row[REAL] for row in rows),
        "ratio": _ratio(rows, "divergence"),
        "ratio_real": _ratio(rows, REAL),
        "rank": _rank(rows, "divergence"),
        "rank_real": _rank(rows, REAL),
    }


def _ratio(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    ratios = [row["influence"] ** 2 / (2 * row[name]) for row in rows if row[name] > 0]
    return median(ratios) if ratios else math.nan


def _rank(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    both = [[row["influence"] for row in rows], [row[name] for row in rows]]
    if any(len(set(values)) < 2 for values in both):
        return math.nan
    return float(spearmanr(*both).statistic)
