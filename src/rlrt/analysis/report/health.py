"""What in a run's numbers says that it is well, and what asks for a look."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlrt.analysis.report.charts import told, told_ratio
from rlrt.analysis.report.runs import ReportedRun
from rlrt.analysis.runs import curve
from rlrt.analysis.text import visible
from rlrt.engine.probe import LIMITS

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}  # trainer.precision -> engine's
LARGEST_GAP = "sync/logprob_gap"
LAST = 10  # rollout steps
STAGES = ("sync", "proof", "probe", "rollout", "reward", "wait", "score", "update", "record")
OUTSIDE = ("checkpoint", "evaluation")  # of no step's seconds

# rules of thumb of this report, not of the method: above these a person should look
MUCH = {
    "update/clip_fraction": 0.2,
    "rollout/zero_signal_groups": 0.8,
    "reward/undecided": 0.01,
    "rollout/truncated": 0.1,
}
RATIO, WEIGHTS = 0.1, 0.01  # distance of a mean ratio from 1; share of weights above their limit


@dataclass(frozen=True)
class Check:
    """A cell of the health table. ``state`` is fine, look, wrong, unknown, or note where there is
    nothing to judge.
    """

    state: str
    text: str


UNKNOWN = Check("unknown", "not in metrics.csv")


def sync_limit(run: ReportedRun) -> tuple[str, float | None]:
    """The column that tells of this run's sync, and what it may be, in nats; None where its settings
    are not known.
    """
    limit = run.settings.get("engine.max_logprob_gap", "null")
    if limit != "null":
        try:
            return LARGEST_GAP, float(limit)
        except ValueError:
            return LARGEST_GAP, None
    dtype = DTYPES.get(run.settings.get("trainer.precision", ""))
    if dtype is None:
        return LARGEST_GAP, None
    if math.isinf(LIMITS[dtype].max):
        return f"{LARGEST_GAP}_mean", LIMITS[dtype].mean
    return LARGEST_GAP, LIMITS[dtype].max


def checks(
    runs: Sequence[ReportedRun], weights: Sequence[dict[str, Any] | None]
) -> list[tuple[str, str, list[Check]]]:
    """Rows of the health table: what is looked at, the rule, and a check for each run."""

    def share(column: str) -> Callable[[ReportedRun], Check]:
        return lambda run: _share(run, column)

    rows: list[tuple[str, str, Callable[[ReportedRun], Check]]] = [
        ("Sync gap", "largest of all steps, against the limit of the run", _sync),
        ("Numbers", "every value of both tables is finite", _finite),
        ("Importance ratio", f"mean of a step within {RATIO:g} of 1", _ratio),
        ("Clipped tokens", _rule("update/clip_fraction"), share("update/clip_fraction")),
        (
            "Groups without signal",
            _rule("rollout/zero_signal_groups"),
            share("rollout/zero_signal_groups"),
        ),
        ("Undecided answers", _rule("reward/undecided"), share("reward/undecided")),
        ("Truncated responses", _rule("rollout/truncated"), share("rollout/truncated")),
        ("Work spared", "share of rollouts, for information", _spared),
        ("Steps", "a row for each, up to the last", _steps),
    ]
    table = [(title, rule, [check(run) for run in runs]) for title, rule, check in rows]
    told_weights = [_weights(run, w) for run, w in zip(runs, weights, strict=True)]
    rule = f"last recorded step; up to {WEIGHTS:.0%} above the limit of the rollout correction"
    return [*table[:3], ("Importance weights", rule, told_weights), *table[3:]]


def _rule(column: str) -> str:
    return f"mean of the last {LAST} steps up to {MUCH[column]:.0%}"


def _sync(run: ReportedRun) -> Check:
    column, limit = sync_limit(run)
    gaps = curve(run.metrics, column)
    if not gaps:
        return UNKNOWN
    step = max(gaps, key=lambda s: math.inf if math.isnan(gaps[s]) else gaps[s])
    text = f"{told(gaps[step])} nats at step {step:,}"
    if limit is None:
        return Check("unknown", f"{text}; the settings name no limit")
    state = "fine" if gaps[step] <= limit else "wrong"  # NaN is not below it
    return Check(state, f"{text}, limit {told(limit)}")


def _finite(run: ReportedRun) -> Check:
    rows = [*run.metrics, *run.evaluations]
    if not rows:
        return Check("unknown", "neither table is there")
    bad: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if not math.isfinite(value):
                bad.setdefault(name, int(row["step"]))
    if not bad:
        return Check("fine", f"{sum(map(len, rows)):,} values")
    first = min(bad, key=lambda name: bad[name])
    more = f" and {len(bad) - 1} more columns" if len(bad) > 1 else ""
    text = f"{visible(first, kept='')}{more} not finite, first at step {bad[first]:,}"
    return Check("wrong", text)


def _ratio(run: ReportedRun) -> Check:
    ratios = {s: v for s, v in curve(run.metrics, "update/ratio_mean").items() if math.isfinite(v)}
    if not ratios:
        return UNKNOWN
    step = max(ratios, key=lambda s: abs(ratios[s] - 1))
    state = "fine" if abs(ratios[step] - 1) <= RATIO else "look"
    return Check(state, f"furthest from 1: {told_ratio(ratios[step])} at step {step:,}")


def _weights(run: ReportedRun, weights: dict[str, Any] | None) -> Check:
    if weights is None:
        return Check("unknown", "no records with a student view")
    least, _, _, high, most = weights["marks"]
    text = (
        f"{told_ratio(least)} to {told_ratio(most)}, 99 % below {told_ratio(high)} "
        f"({weights['tokens']:,} tokens of step {weights['step']:,})"
    )
    if not all(map(math.isfinite, weights["marks"])):
        return Check("wrong", text)
    limit = run.settings.get("loss.rollout_correction_limit", "null")
    try:
        above = float((weights["values"] > float(limit)).mean())
    except ValueError:
        return Check("unknown", f"{text}; no rollout correction")
    return Check("fine" if above <= WEIGHTS else "look", f"{text}; {above:.2%} above {limit}")


def _share(run: ReportedRun, column: str) -> Check:
    values = [v for v in curve(run.metrics, column).values() if math.isfinite(v)]
    if not values:
        return UNKNOWN
    first, last = (sum(part) / len(part) for part in (values[:LAST], values[-LAST:]))
    state = "fine" if last <= MUCH[column] else "look"
    return Check(state, f"{first:.1%} at first, {last:.1%} at last, at most {max(values):.1%}")


def _spared(run: ReportedRun) -> Check:
    words = {
        "update/skipped_rollouts": "without a backward",
        "score/skipped_rollouts": "without any pass",
    }
    found = []
    for column, text in words.items():
        values = [v for v in curve(run.metrics, column).values() if math.isfinite(v)]
        if values:
            found.append(f"{sum(values) / len(values):.0%} {text}")
    return Check("note", ", ".join(found)) if found else UNKNOWN


def _steps(run: ReportedRun) -> Check:
    missing = run.done - len(run.metrics)
    of = "" if run.planned is None else f" of {run.planned:,}"
    text = f"{run.done:,}{of} done" + (f", {missing:,} without a row" if missing else "")
    if not run.metrics:
        return UNKNOWN
    return Check("look" if missing or not run.ended else "fine", text)


def stage_seconds(run: ReportedRun) -> dict[str, float]:
    """Mean seconds of each stage per rollout step, largest possible remainder of the step as "other";
    checkpoints and evaluations, which come on top, last. A step that lacks a stage spent none in it.
    """

    def mean(name: str) -> float:
        values = [row.get(f"time/{name}_s", 0.0) for row in run.metrics]
        return sum(v for v in values if math.isfinite(v)) / max(len(values), 1)

    inside = {name: mean(name) for name in STAGES}
    inside["other"] = max(mean("step") - sum(inside.values()), 0.0)
    found = inside | {name: mean(name) for name in OUTSIDE}
    return {name: seconds for name, seconds in found.items() if seconds > 0}
