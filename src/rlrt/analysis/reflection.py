"""Reflection injection (arXiv:2605.10781, Fig. 6): does a sentence of doubt turn an outcome?

A response y is cut before position t, a sentence is put there, and the policy goes on from
``y_<t + sentence``. Before, since ``D̄_t = KL(P_S ‖ P_T)`` is of the choice at t, given ``y_<t`` alone:
the choice is made anew. The verdict is that of the complete response, ``y_<t + sentence + continuation``.
Sampling on from ``y_<t`` at a temperature turns outcomes too, so every injection has a control that
the paper does not have (ours): the same cut and the same random numbers without the sentence.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rlrt.analysis.figures import COLORS, legend_below, plain, tidy
from rlrt.batch import Response, Rollout, Verdict
from rlrt.estimators import Array, Resampled, resample
from rlrt.seeds import derive_seed

SENTENCE = "Wait, let me reconsider."
SAMPLES = 8  # rollouts that say how hard a problem is
LABELS = {"argmax": "at the largest D̄", "random": "at random", "argmin": "at the smallest D̄"}
PLACES = tuple(LABELS)

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Problems by how many of 8 rollouts are right, and the turn of an outcome that is counted."""

    name: str
    right: range
    before: Verdict
    after: Verdict

    @property
    def title(self) -> str:
        numbers = f"{self.right.start}–{self.right.stop - 1} of {SAMPLES} right"
        return f"{self.name} problems ({numbers}): {self.before} → {self.after}"


KINDS = (
    Kind("hard", range(3), Verdict.WRONG, Verdict.RIGHT),
    Kind("easy", range(5, 8), Verdict.RIGHT, Verdict.WRONG),
)


@dataclass(frozen=True)
class Case:
    """A rollout whose outcome may turn, and its divergence at every token."""

    kind: Kind
    rollout: Rollout
    divergence_T: Tensor  # nats


@dataclass(frozen=True)
class Injection:
    """What the engine goes on from, after the prompt: ``ids``."""

    case: Case
    place: str
    position: int  # response tokens that are kept
    sentence_ids: tuple[int, ...]  # empty: the control

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.case.rollout.response.ids[: self.position].tolist(), *self.sentence_ids)

    def complete(self, continuation: Response) -> Response:
        """Kept tokens, sentence and continuation; log-probs of the sentence, never sampled, are NaN."""
        kept = self.case.rollout.response.engine_logprobs[: self.position]
        unknown = (float("nan"),) * len(self.sentence_ids)
        logprobs = (*kept, *unknown, *continuation.engine_logprobs)
        return Response((*self.ids, *continuation.ids), logprobs, continuation.truncated)


@dataclass(frozen=True)
class CheckpointVerdicts:
    """One checkpoint: its injections with their verdicts, and by kind the rollouts left out since
    their context shows the teacher nothing, so that they have no D̄.
    """

    step: int
    judged: Sequence[tuple[Injection, Verdict]]
    left_out: Mapping[str, int]


def turnable(rollouts: Sequence[Rollout]) -> list[tuple[Kind, Rollout]]:
    """The wrong rollouts of hard problems and the right ones of easy problems; empty ones aside.

    ``rollouts`` hold 8 of each problem. An undecided rollout is not right, and no case.
    """
    groups: dict[int, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.group].append(rollout)
    assert all(len(group) == SAMPLES for group in groups.values()), "8 rollouts to a problem"
    return [
        (kind, rollout)
        for group in groups.values()
        for kind in KINDS
        if sum(rollout.verdict is Verdict.RIGHT for rollout in group) in kind.right
        for rollout in group
        if rollout.verdict is kind.before and len(rollout.response.ids)
    ]


def positions(divergence_T: Tensor, seed: int) -> dict[str, int]:
    """Position of each place: the first of the largest D̄, any with equal chance, the first of the least."""
    values_T = divergence_T.numpy()
    by_chance = np.random.default_rng(seed).integers(len(values_T))
    places = values_T.argmax(), by_chance, values_T.argmin()
    return dict(zip(PLACES, map(int, places), strict=True))


def injections(case: Case, sentence_ids: Sequence[int], seed: int) -> list[Injection]:
    """With and without the sentence at each place. ``seed`` decides about the random place."""
    return [
        Injection(case, place, position, ids)
        for place, position in positions(case.divergence_T, seed).items()
        for ids in (tuple(sentence_ids), ())
    ]


def rates(checkpoints: Sequence[CheckpointVerdicts]) -> list[Row]:
    """A row per checkpoint, kind and place; without numbers where the kind has no case.

    ``rate``: share of rollouts whose outcome turned, ``control``: the same without the sentence, and
    ``change``, their difference: with 95 % intervals (percentiles of a bootstrap over problems, whose
    rollouts stay together), which a single problem does not have. An interval of width 0 says that
    all problems behaved alike, not that the rate is known. An undecided outcome has not turned.
    """
    return [
        {"step": checkpoint.step, "kind": kind.name, "place": place}
        | _row(
            [
                (injection, verdict)
                for injection, verdict in checkpoint.judged
                if injection.case.kind is kind and injection.place == place
            ]
        )
        | {"left_out": checkpoint.left_out.get(kind.name, 0)}
        for checkpoint in checkpoints
        for kind in KINDS
        for place in PLACES
    ]


def _row(judged: Sequence[tuple[Injection, Verdict]]) -> Row:
    problems = sorted({injection.case.rollout.group for injection, _ in judged})
    counts_P3 = np.zeros((len(problems), 3))  # rollouts; turned with the sentence, and without
    for injection, verdict in judged:
        counts_3 = counts_P3[problems.index(injection.case.rollout.group)]
        injected = bool(injection.sentence_ids)
        counts_3[0] += injected
        counts_3[1 if injected else 2] += verdict is injection.case.kind.after
    row: Row = {"problems": len(problems), "rollouts": int(counts_P3[:, 0].sum())}
    if not problems:
        return row
    sums = resample(counts_P3, derive_seed(0, "reflection bootstrap"))
    estimates, drawn = _estimates(counts_P3.sum(0)), _estimates(sums.draws)
    for name, estimate in estimates.items():
        row[name] = float(estimate)
        if len(problems) > 1:
            low, high = Resampled(estimate, drawn[name]).interval()
            row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return row | {"undecided": sum(verdict is Verdict.UNDECIDED for _, verdict in judged)}


def _estimates(counts: Array) -> dict[str, Array]:
    """Ratios of counts, whose last dimension is rollouts, turned with the sentence, and without."""
    rollouts, injected, control = np.moveaxis(counts, -1, 0)
    return {
        "rate": injected / rollouts,
        "control": control / rollouts,
        "change": (injected - control) / rollouts,
    }


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Above the rates, dashed without the sentence; below what the sentence changes, against zero.

    The numbers at the top count the problems of each checkpoint.
    """
    figure, panels = plt.subplots(
        2, len(KINDS), figsize=(11, 7), sharex=True, sharey="row", layout="constrained"
    )
    for above, below, kind in zip(*panels, KINDS, strict=True):
        for place, color in zip(PLACES, COLORS, strict=False):
            own = [row for row in rows if (row["kind"], row["place"]) == (kind.name, place)]
            _line(above, own, "rate", color, LABELS[place])
            _line(above, own, "control", color, "_", dashed=True)
            _line(below, own, "change", color, "_")
        for row in own:
            above.text(row["step"], 1.04, row["problems"], ha="center", fontsize=7, color="gray")
        steps = [row["step"] for row in own]
        margin = 0.05 * (max(steps) - min(steps)) or 1
        above.set_xlim(min(steps) - margin, max(steps) + margin)
        tidy(above)
        tidy(below)
        above.set(title=kind.title, ylim=(0, 1.1))
        below.axhline(0, color="black", lw=0.8)
        below.set_xlabel("rollout steps (above: problems)")
        if not any(row["problems"] for row in own):
            above.text(0.5, 0.5, "no such problem", ha="center", transform=above.transAxes)
    above.plot([], [], "--", color="gray", label="same cut, no sentence")
    panels[0, 0].set_ylabel("share that turned (95 %, over problems)")
    panels[1, 0].set_ylabel("with the sentence − without")
    legend_below(figure, above.get_legend_handles_labels()[0])
    figure.suptitle(plain(title))
    return figure


def _line(
    axes: Axes, rows: Sequence[Row], name: str, color: str, label: str, dashed: bool = False
) -> None:
    """Over checkpoints, with its band; a gap where a kind has no problem."""
    steps = [row["step"] for row in rows]
    mean, low, high = (
        [row.get(key, float("nan")) for row in rows]
        for key in (name, f"{name}_low", f"{name}_high")
    )
    axes.plot(steps, mean, "--" if dashed else "-o", color=color, lw=1.6, ms=4, label=label)
    if not dashed:
        axes.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)
