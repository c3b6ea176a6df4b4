"""The numbers of a report: curves, tables, and what in them asks for a look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from rlrt.analysis import read_data
from rlrt.analysis.pages import visible
from rlrt.analysis.runs import Curve, ReportedRun, Row, curve
from rlrt.engine.probe import LIMITS

MOST_POINTS = 2000  # of a curve; of longer ones the least and the most of every stretch are drawn
TABLE_ROWS = 9  # of the table of values behind a curve
WINDOW = 5  # rollout steps in a mean of a table

Points = list[tuple[int, float]]

COLUMNS: dict[str, dict[str, list[str]]] = read_data("report_columns")  # by section of the page
LOGARITHMIC = ("sync/logprob_gap",)


@dataclass(frozen=True)
class Chart:
    """One column of one of the two tables, of all runs that have it."""

    number: int
    column: str
    title: str
    note: str
    held_out: bool
    log: bool
    limits: list[float]
    curves: list[dict[str, Any]]  # run, x, y for the page's script
    table: list[list[str]]  # a step and the value of each curve
    thinned: bool


def format_number(value: float | None) -> str:
    """A number in four digits; nothing for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "−∞" if value < 0 else "∞"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("-", "−")
    return f"{value:,.4g}".replace("-", "−") if abs(value) < 1e4 else f"{value:,.0f}"


def format_ratio(value: float) -> str:
    """A ratio; one that is 1 in four digits by its distance from 1."""
    away = value - 1
    if not 0 < abs(away) < 5e-4:
        return format_number(value)
    return f"1 {'+' if away > 0 else '−'} {abs(away):.1e}".replace("e-", "e−")


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most ``most`` (>= 5) of the points, in order: first and last, and of every stretch of equal
    length the least and the most, so that no peak is lost. Of numbers that are not finite the first
    of a stretch stays.
    """
    if len(points) <= most:
        return points
    stretches = max((most - 2) // 3, 1)
    kept = {0, len(points) - 1}
    for number in range(stretches):
        part = range(number * len(points) // stretches, (number + 1) * len(points) // stretches)
        finite = [i for i in part if math.isfinite(points[i][1])]
        if finite:
            kept |= {f(finite, key=lambda i: points[i][1]) for f in (min, max)}
        kept |= set([i for i in part if not math.isfinite(points[i][1])][:1])
    return [points[i] for i in sorted(kept)]


def json_number(value: float) -> float | int | str:
    """A number of five digits as JSON can hold it; a word for one that is not finite."""
    if not math.isfinite(value):
        return format_number(value)
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def sections(runs: Sequence[ReportedRun], limits: Sequence[float]) -> dict[str, list[Chart]]:
    """The charts of each section: learning, credit, health, and every column that no other shows.

    ``limits`` are those of the sync gap.
    """
    columns = _columns([run.metrics for run in runs])
    held_out = _columns([run.evaluations for run in runs])
    first = [c for c in held_out if c.startswith("avg@")]
    first += sorted((c for c in held_out if c.startswith("pass@")), key=_k)[-1:]
    count = iter(range(10_000))

    def charts(titles: Mapping[str, Sequence[str]]) -> list[Chart]:
        return [
            _chart(next(count), name, title, runs, False, limits)
            for name, title in titles.items()
            if name in columns
        ]

    def evaluated(names: Sequence[str]) -> list[Chart]:
        return [
            _chart(next(count), c, (f"Held-out {c}", "after so many rollout steps"), runs, True, [])
            for c in names
        ]

    titled = {name for titles in COLUMNS.values() for name in titles}
    return {
        "learning": evaluated(first) + charts(COLUMNS["learning"]),
        "credit": charts(COLUMNS["credit"]),
        "health": charts(COLUMNS["health"]),
        "other": charts({name: (name, "") for name in columns if name not in titled})
        + evaluated([c for c in held_out if c not in first]),
    }


def _columns(tables: Sequence[Sequence[Row]]) -> list[str]:
    names = dict.fromkeys(name for rows in tables for row in rows for name in row)
    return [name for name in names if name != "step"]


def _k(column: str) -> int:
    tail = column.partition("@")[2]
    return int(tail) if tail.isdecimal() else 0


def _chart(
    number: int,
    column: str,
    title: Sequence[str],
    runs: Sequence[ReportedRun],
    held_out: bool,
    limits: Sequence[float],
) -> Chart:
    curves_of_runs = [curve(run.evaluations if held_out else run.metrics, column) for run in runs]
    curves, thinned = [], False
    for index, values in enumerate(curves_of_runs):
        points = thin(list(values.items()))
        thinned |= len(points) < len(values)
        if values:
            xs, ys = [x for x, _ in points], [json_number(y) for _, y in points]
            curves.append({"run": index, "x": xs, "y": ys, "thinned": len(points) < len(values)})
    steps = sorted({step for values in curves_of_runs for step in values})
    last = max(len(steps) - 1, 1)
    chosen = sorted({i * last // (TABLE_ROWS - 1) for i in range(TABLE_ROWS)}) if steps else []
    rows = [steps[i] for i in chosen if i < len(steps)]
    log = column in LOGARITHMIC
    return Chart(
        number,
        visible(column, kept=""),
        visible(title[0], kept=""),
        title[1],
        held_out,
        log,
        list(limits) if log else [],
        curves,
        [
            [f"{step:,}", *(format_number(values.get(step)) for values in curves_of_runs)]
            for step in rows
        ],
        thinned,
    )


def evaluation_table(run: ReportedRun) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the first, the best and the last evaluation of a run.

    The best is the first of the highest avg@k; without such a column there is none.
    """
    rows = run.evaluations
    names = _columns([rows])
    score = next((name for name in names if name.startswith("avg@")), "")
    scored = [row for row in rows if math.isfinite(row.get(score, math.nan))]
    best = max(scored, key=lambda row: row[score], default=None)
    chosen = [("first", rows[0]), ("best", best), ("last", rows[-1])] if rows else []
    table = [
        [word, format_number(row["step"]), *(format_number(row.get(name)) for name in names)]
        for word, row in chosen
        if row is not None
    ]
    return ["", "step", *(visible(name, kept="") for name in names)], table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # fmean refuses to add infinities of both signs


def final_metrics(runs: Sequence[ReportedRun]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each column of metrics.csv with, for every run, its mean over the first and the last WINDOW
    steps that have it.
    """

    def ends(run: ReportedRun, column: str) -> tuple[str, str]:
        values = list(curve(run.metrics, column).values())
        if not values:
            return "", ""
        return format_number(_mean(values[:WINDOW])), format_number(_mean(values[-WINDOW:]))

    columns = _columns([run.metrics for run in runs])
    return [(visible(c, kept=""), [ends(run, c) for run in runs]) for c in sorted(columns)]


DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}  # trainer.precision -> engine's
LARGEST_GAP = "sync/logprob_gap"
LAST = 10  # rollout steps
STAGES = ("sync", "proof", "probe", "rollout", "reward", "wait", "score", "update", "record")
OUTSIDE = ("checkpoint", "evaluation")  # of no step's seconds

# rules of thumb of this report, not of the method: above these a person should look
SHARES = {  # column -> what it is, and how much of it is much
    "update/clip_fraction": ("Clipped tokens", 0.2),
    "rollout/zero_signal_groups": ("Groups without signal", 0.8),
    "reward/undecided": ("Undecided answers", 0.01),
    "rollout/truncated": ("Truncated responses", 0.1),
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
    shares = [
        (
            title,
            f"mean of the last {LAST} steps up to {much:.0%}",
            [_share(run, column, much) for run in runs],
        )
        for column, (title, much) in SHARES.items()
    ]
    return [
        ("Sync gap", "largest of all steps, against the limit of the run", list(map(_sync, runs))),
        ("Numbers", "every value of both tables is finite", list(map(_finite, runs))),
        ("Importance ratio", f"mean of a step within {RATIO:g} of 1", list(map(_ratio, runs))),
        (
            "Importance weights",
            f"last recorded step; up to {WEIGHTS:.0%} above the limit of the rollout correction",
            list(map(_weights, runs, weights)),
        ),
        *shares,
        ("Work spared", "share of rollouts, for information", list(map(_spared, runs))),
        ("Steps", "a row for each, up to the last", list(map(_steps, runs))),
    ]


def _finite_curve(run: ReportedRun, column: str) -> Curve:
    return {s: v for s, v in curve(run.metrics, column).items() if math.isfinite(v)}


def _sync(run: ReportedRun) -> Check:
    column, limit = sync_limit(run)
    gaps = curve(run.metrics, column)
    if not gaps:
        return UNKNOWN
    step = max(gaps, key=lambda s: math.inf if math.isnan(gaps[s]) else gaps[s])
    text = f"{format_number(gaps[step])} nats at step {step:,}"
    if limit is None:
        return Check("unknown", f"{text}; the settings name no limit")
    state = "fine" if gaps[step] <= limit else "wrong"  # NaN is not below it
    return Check(state, f"{text}, limit {format_number(limit)}")


def _finite(run: ReportedRun) -> Check:
    rows = [*run.metrics, *run.evaluations]
    if not rows:
        return Check("unknown", "neither table is there")
    step_of: dict[str, int] = {}  # of each column the first value that is not finite
    for row in rows:
        for name, value in row.items():
            if not math.isfinite(value):
                step_of.setdefault(name, int(row["step"]))
    if not step_of:
        return Check("fine", f"{sum(map(len, rows)):,} values")
    first = min(step_of, key=lambda name: step_of[name])
    more = f" and {len(step_of) - 1} more columns" if len(step_of) > 1 else ""
    text = f"{visible(first, kept='')}{more} not finite, first at step {step_of[first]:,}"
    return Check("wrong", text)


def _ratio(run: ReportedRun) -> Check:
    ratios = _finite_curve(run, "update/ratio_mean")
    if not ratios:
        return UNKNOWN
    step = max(ratios, key=lambda s: abs(ratios[s] - 1))
    state = "fine" if abs(ratios[step] - 1) <= RATIO else "look"
    return Check(state, f"furthest from 1: {format_ratio(ratios[step])} at step {step:,}")


def _weights(run: ReportedRun, weights: dict[str, Any] | None) -> Check:
    if weights is None:
        return Check("unknown", "no records with a student view")
    least, _, _, high, most = weights["marks"]
    text = (
        f"{format_ratio(least)} to {format_ratio(most)}, 99 % below {format_ratio(high)} "
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


def _share(run: ReportedRun, column: str, much: float) -> Check:
    values = list(_finite_curve(run, column).values())
    if not values:
        return UNKNOWN
    first, last = fmean(values[:LAST]), fmean(values[-LAST:])
    text = f"{first:.1%} at first, {last:.1%} at last, at most {max(values):.1%}"
    return Check("fine" if last <= much else "look", text)


def _spared(run: ReportedRun) -> Check:
    shares = [
        f"{fmean(values):.0%} {text}"
        for column, text in (
            ("update/skipped_rollouts", "without a backward"),
            ("score/skipped_rollouts", "without any pass"),
        )
        if (values := _finite_curve(run, column).values())
    ]
    return Check("note", ", ".join(shares)) if shares else UNKNOWN


def _steps(run: ReportedRun) -> Check:
    missing = run.done - len(run.metrics)
    goal = "" if run.planned is None else f" of {run.planned:,}"
    text = f"{run.done:,}{goal} done" + (f", {missing:,} without a row" if missing else "")
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
    stages = inside | {name: mean(name) for name in OUTSIDE}
    return {name: seconds for name, seconds in stages.items() if seconds > 0}
