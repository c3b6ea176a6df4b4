"""Lemma 1 and Theorem 2 of arXiv:2605.10781: a teacher that knows only that the response will be correct.

At a position the student gives token v the probability ``P_S(v)``, and a response that goes on with v ends
correct with probability ``f(v)``; ``f̄ = Σ P_S f`` is the position's success rate. Given that the response
ends correct, Bayes' rule makes of the student the teacher ``P_T(v) = P_S(v) f(v) / f̄``.

Lemma 1. ``D̂(v) = log P_S(v) - log P_T(v) = log f̄ - log f(v)``: the student's own share cancels, and what
the two views disagree about is how good a token is. Hence ``D̄ = Σ P_S D̂ = log f̄ - Σ P_S log f``.

Theorem 2. With ``Inf = Σ P_S |f - f̄|``, how much the choice of this token moves success on average,
``Inf² ≤ 2 D̄``. Proof: ``P_S |f - f̄| = f̄ |P_T - P_S|``, so that ``Inf = f̄ ‖P_S - P_T‖₁``. Pinsker's inequality
says ``‖P_S - P_T‖₁² ≤ 2 KL(P_S‖P_T) = 2 D̄``. Together ``Inf² ≤ 2 f̄² D̄``, and ``f̄ ≤ 1``.

So the bound is loose by f̄² to begin with, and where success is rare it says little. Pinsker is strict but
at P_S = P_T, hence equality holds only where f is the same for all tokens (0 = 0). No smaller constant
would do: two tokens of probability 1/2 with f = 1 and 1 - ε have ``Inf² / (2 D̄) = 1 - ε + O(ε²)``.

Where a token that the student may choose has f(v) = 0 the teacher rules it out, D̄ is infinite, and the bound
holds and says nothing. Where f̄ = 0 nothing ends correct and there is no such teacher: values are NaN.

Functions of a student and its success take ``P_S`` (sums to 1) and f in [0, 1], both ``[..., V]``, float64
where digits matter. Both statements are checked in two places: at every node of small worlds that are
known completely, and at positions of real responses, where f is estimated by sampling.

A world is a tree of tokens with a student at every node and a success at every leaf. W worlds stand side by
side, with V tokens and responses of D tokens. A node of depth d is a prefix of d tokens; the students of that
depth are ``[W, V^d, V]``, the leaves ``[W, V^D]`` hold the probability that a complete response is correct.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from rlrt.analysis.figures import COLORS, MARKERS, plain, tidy
from rlrt.batch import Rollout
from rlrt.loss.divergences import kl
from rlrt.model.fused_head import Read


def success_rate(student: Tensor, success: Tensor) -> Tensor:
    """``f̄``, shape ``[...]``."""
    return (student * success).sum(-1)


def bayesian_teacher(student: Tensor, success: Tensor) -> Tensor:
    """``P_T``, shape ``[..., V]``; NaN where f̄ = 0."""
    return student * success / success_rate(student, success)[..., None]


def disagreement(student: Tensor, success: Tensor) -> Tensor:
    """``D̂`` by Lemma 1 in nats, ``[..., V]``: infinite where f(v) = 0, NaN where f̄ = 0."""
    rate = success_rate(student, success)[..., None]
    return torch.where(rate > 0, rate.log() - success.log(), torch.nan)


def divergence(student: Tensor, success: Tensor) -> Tensor:
    """``D̄ = KL(P_S‖P_T)`` in nats, ``[...]``: infinite where the student may fail for sure, NaN where f̄ = 0.

    As ``Σ P_S (u - log(1 + u))`` with ``u = f / f̄ - 1``, whose mean is 0: no term is negative, so that
    small values keep their digits, which ``Σ P_S D̂`` loses.
    """
    rate = success_rate(student, success)[..., None]
    u = (success - rate) / rate
    # log1p has the digits where u is about 0, the difference of logs where it is about -1
    terms = student * (u - torch.where(u.abs() < 0.5, u.log1p(), success.log() - rate.log()))
    return terms.masked_fill((student == 0) & (rate > 0), 0.0).sum(-1)


def influence(student: Tensor, success: Tensor) -> Tensor:
    """``Inf``, shape ``[...]``, in [0, 1/2]."""
    rate = success_rate(student, success)[..., None]
    return (student * (success - rate).abs()).sum(-1)


def success_after_tokens(students: Sequence[Tensor], leaves: Tensor) -> list[Tensor]:
    """``f`` at every depth, each like that depth's students, by dynamic programming from the leaves."""
    successes = [leaves.reshape(students[-1].shape)]
    for depth in range(len(students) - 1, 0, -1):
        rates = (students[depth] * successes[0]).sum(-1)
        successes.insert(0, rates.reshape(students[depth - 1].shape))
    return successes


def teachers_by_bayes(students: Sequence[Tensor], leaves: Tensor) -> list[Tensor]:
    """``P_T`` at every depth from the posterior over complete responses, given that they are correct.

    Every response is weighed by its probability and its success, and a token's share is that of the
    responses that go on with it; no f is used. NaN below prefixes from which nothing succeeds.
    """
    responses = torch.ones_like(students[0][:, :, 0])
    for student in students:
        responses = (responses[..., None] * student).flatten(1)
    posterior = responses * leaves
    teachers = []
    for student in students:
        weights = posterior.reshape(*student.shape, -1).sum(-1)
        teachers.append(weights / weights.sum(-1, keepdim=True))
    return teachers


KINDS = {  # of worlds, in order of drawing
    "any": "any student, any success",
    "sparse": "success 0 or 1 at the end",
    "near": "success nearly sure, all tokens alike",
    "pairs": "two tokens of 1/2, one a little worse",
}
ROUNDING = 1e-20  # of Inf² and D̄ in float64, where both are 0

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


class CheckedNodes(NamedTuple):
    """Every node of some worlds where success is possible: N values of each.

    ``lemma_gap`` is the largest difference between ``D̂`` of the posterior over complete responses and
    Lemma 1's, over the tokens of a node, relative where ``|D̂| > 1``.
    """

    rate: Tensor
    influence: Tensor
    divergence: Tensor
    lemma_gap: Tensor


def make_worlds(
    kind: str, count: int, vocabulary: int, depth: int, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Students and leaves of ``count`` worlds, as in ``rlrt.analysis.theory``."""
    if kind == "pairs":
        vocabulary = 2
    sizes = [(count, vocabulary**d) for d in range(depth)]
    # from nearly deterministic students to nearly uniform ones
    peaks = [10 ** rng.uniform(-1, 1, (*size, 1)) for size in sizes]
    draws = [rng.standard_gamma(np.broadcast_to(p, (*p.shape[:2], vocabulary))) for p in peaks]
    # + 1e-12: gamma draws of a small shape may underflow, to 0 for every token of a node
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


def check_worlds(students: Sequence[Tensor], leaves: Tensor) -> CheckedNodes:
    """Lemma 1 and both sides of Theorem 2 at every node from which something succeeds."""
    checked: list[CheckedNodes] = []
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
        checked.append(CheckedNodes(rate[kept], influence(s, f), divergence(s, f), gap.amax(-1)))
    return CheckedNodes(*map(torch.cat, zip(*checked, strict=True)))


def world_summary(checked: Sequence[CheckedNodes]) -> dict[str, float]:
    """Over all nodes: how many, at how many D̄ is infinite, the largest ``lemma_gap``, at how many Theorem 2
    is broken by more than rounding, and the largest ``Inf² / (2 D̄)``.
    """
    _, inf, divergence, gap = map(torch.cat, zip(*checked, strict=True))
    ratio = inf.square() / (2 * divergence)
    ratio = ratio[divergence > ROUNDING]
    return {
        "nodes": len(inf),
        "infinite": int(divergence.isinf().sum()),
        "gap": max(gap.tolist(), default=0.0),
        "broken": int((inf.square() > 2 * divergence * (1 + 1e-9) + ROUNDING).sum()),
        "ratio": max(ratio.tolist(), default=0.0),
    }


def world_rows(kind: str, nodes: CheckedNodes, most: int) -> list[Row]:
    """At most so many nodes, evenly spread, as rows of a figure; none where D̄ is 0 or infinite."""
    drawable = (nodes.divergence.isfinite() & (nodes.divergence > 0)).nonzero()[:, 0]
    chosen = drawable[:: max(1, math.ceil(len(drawable) / most))]
    values = torch.stack([column[chosen] for column in nodes], 1)
    return [
        {"panel": "world", "kind": kind, "success_rate": f, "influence": i, "divergence": d, "lemma_gap": g}
        for f, i, d, g in values.tolist()
    ]  # fmt: skip


REAL = "teacher_divergence"


def reading(tokens: int) -> Read:
    """For ``rlrt.model.policy.compare``: each position's likeliest ``tokens`` ids of the student with
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
    """A position to look at: its rollout, the row of that in the step's records, its likeliest K tokens
    with their probabilities over the whole vocabulary, and D̄ of the real teacher view in nats.
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


def tally(right: Sequence[bool], tokens: int, samples: int) -> Tensor:
    """The correct ends after each token of each place, ``[places, halves of the samples, tokens]``.

    ``right`` says of each continuation whether it ended correct, in the order of places, tokens and
    samples (even).
    """
    return torch.tensor(right).view(-1, tokens, 2, samples // 2).sum(-1).transpose(1, 2)


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


def estimate(place: Place, right_2K: Tensor, samples: int) -> Row:
    """Both sides of Theorem 2 at a position, in the world where the token is one of its K.

    ``right_2K`` counts correct ends in two halves of the ``samples`` continuations after each token.
    Given one of the K, a Bayesian teacher stays Bayesian, so the theorem holds there too; f outside of
    them is not asked for. f is ``(right + 1/2) / (samples + 1)``, never 0, for D̄ would be infinite.
    ``influence`` is biased upwards, for it counts noise as difference.
    ``influence_low`` takes each token's sign of f - f̄ from one half and its value from the other: its
    expectation is never above Inf. ``influence_error`` is the standard error, the signs held fixed.
    """
    student = place.student_K.double()
    student = student / student.sum()
    right_2K = right_2K.double()
    halves = right_2K / (samples / 2)
    success = (right_2K.sum(0) + 0.5) / (samples + 1)
    centered = halves - success_rate(student, halves)[:, None]
    crossed = (
        student * centered[0] * centered[1].sign() + student * centered[1] * centered[0].sign()
    ) / 2
    signs = (success - success_rate(student, success)).sign()
    # Inf = Σ P_S sign (f - f̄) = Σ P_S (sign - mean sign) f is linear in f
    slopes = student * (signs - (student * signs).sum())
    error = (slopes.square() * success * (1 - success) / samples).sum().sqrt()
    return {
        "panel": "policy",
        "rollout": place.row,
        "position": place.position,
        "tokens": len(student),
        "covered": float(place.student_K.sum()),
        "success_rate": float(success_rate(student, success)),
        "influence": float(influence(student, success)),
        "influence_low": float(crossed.sum()),
        "influence_error": float(error),
        "divergence": float(divergence(student, success)),
        "teacher_divergence": place.divergence,
    }


def summary(rows: Rows) -> Row:
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


def _ratio(rows: Rows, name: str) -> float:
    ratios = [row["influence"] ** 2 / (2 * row[name]) for row in rows if row[name] > 0]
    return median(ratios) if ratios else math.nan


def _rank(rows: Rows, name: str) -> float:
    both = [[row["influence"] for row in rows], [row[name] for row in rows]]
    if any(len(set(values)) < 2 for values in both):
        return math.nan
    return float(spearmanr(*both).statistic)


WORLD_LIMITS = (1e-8, 20.0)  # of both axes; smaller values are not drawn
POLICY_LIMITS = (1e-5, 20.0)  # smaller values stand at the edge: sampling does not tell them from 0
MOST_IN_VECTORS = 500  # points of one series


def draw(rows: Rows, title: str) -> Figure:
    """The worlds on the left; where there are any, sampled positions on the right, under ``title``."""
    worlds = [row for row in rows if row["panel"] == "world"]
    policy = [row for row in rows if row["panel"] == "policy"]
    panels = 1 + bool(policy)
    figure = Figure(figsize=(5.6 * panels, 5), layout="constrained")
    left, *right = figure.subplots(1, panels, squeeze=False)[0]
    for number, (kind, label) in enumerate(KINDS.items()):
        of_kind = [row for row in worlds if row["kind"] == kind]
        _points(left, of_kind, "divergence", label, number, filled=True)
    left.set_title("worlds that are known completely: their nodes")
    _finish(left, WORLD_LIMITS)
    for axes in right:
        _error_bars(axes, policy)
        _points(axes, policy, "teacher_divergence", "D̄ of the real teacher view", 1)
        _points(axes, policy, "divergence", "D̄ of a Bayesian teacher with this f", 0)
        axes.set_title(plain(title))
        _finish(axes, POLICY_LIMITS)
    return figure


def _points(
    axes: Axes, rows: Rows, name: str, label: str, number: int, filled: bool = False
) -> None:
    least = 0.0 if filled else POLICY_LIMITS[0]
    axes.scatter(
        [max(2 * row[name], least) for row in rows],
        [max(row["influence"] ** 2, least) for row in rows],
        s=7 if filled else 26,
        marker=MARKERS[number],
        facecolors=COLORS[number] if filled else "none",
        edgecolors=COLORS[number],
        linewidths=0 if filled else 1.1,
        label=label,
        rasterized=len(rows) > MOST_IN_VECTORS,
        zorder=3 if number else 4,
    )


def _error_bars(axes: Axes, rows: Rows) -> None:
    """From two standard errors below the lower of the two estimates of Inf to two above the higher."""
    places: list[float] = []
    heights: list[float] = []
    for row in rows:
        estimates, error = (row["influence"], row["influence_low"]), 2 * row["influence_error"]
        ends = (max(min(estimates) - error, 0.0), max(estimates) + error)
        at = max(2 * row["teacher_divergence"], POLICY_LIMITS[0])
        places += [at, at, math.nan]  # one line with gaps: a file of half the size
        heights += [*(max(end**2, POLICY_LIMITS[0]) for end in ends), math.nan]
    axes.plot(places, heights, color=COLORS[1], lw=0.6, alpha=0.5, zorder=2)


def _finish(axes: Axes, limits: tuple[float, float]) -> None:
    axes.plot(limits, limits, color="0.2", lw=1, label="Inf² = 2 D̄", zorder=5)
    low, high = limits
    axes.set(xscale="log", yscale="log", xlim=(low * 0.8, high), ylim=(low * 0.8, 1))
    axes.set(xlabel="2 D̄ (nats)", ylabel="Inf²")
    tidy(axes)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
