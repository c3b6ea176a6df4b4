"""One page about one or several runs: what differs, how they learnt, what they wrote, how they are.

Everything that stands on it is read from run folders; what a folder lacks is said in its place.
"""

from collections.abc import Sequence
from typing import Any

from rlrt.analysis.html import render
from rlrt.analysis.report.charts import Chart, evaluation_table, final_metrics, sections, told
from rlrt.analysis.report.health import LARGEST_GAP, checks, stage_seconds, sync_limit
from rlrt.analysis.report.runs import ReportedRun
from rlrt.analysis.report.samples import HEAD, TAIL, Row, Samples
from rlrt.analysis.report.settings import Settings, by_method, differences
from rlrt.analysis.text import visible

COLOUR_COUNT, DASH_COUNT = 6, 4  # that report.css has classes for
Defaults = tuple[str, Settings]  # the command whose settings they are


def page(
    runs: Sequence[ReportedRun],
    samples: Sequence[Samples],
    defaults: Sequence[Defaults | None],
) -> str:
    """The report as HTML; for every run its samples, and the settings to compare its own with where
    there are some.
    """
    told = [limit for column, limit in map(sync_limit, runs) if column == LARGEST_GAP]
    limits = sorted({limit for limit in told if limit is not None})
    charts = sections(runs, limits)
    marks = _marks(runs)
    weights = [sample.weights for sample in samples]
    health = checks(runs, weights)
    members = _members(runs)
    between = differences([run.settings for run in runs])
    rollouts = [row | {"run": i} for i, part in enumerate(samples) for row in part.rollouts]
    summaries = [
        _summary(run, mark, part, [row[2][number] for row in health])
        for number, (run, mark, part) in enumerate(zip(runs, marks, samples, strict=True))
    ]
    return render(
        "report",
        title=_title(runs),
        runs=summaries,
        members=members,
        between=by_method(between, members),
        own=[_own(run, default) for run, default in zip(runs, defaults, strict=True)],
        settings=[sorted(run.settings.items()) for run in runs],
        charts=charts,
        evaluations=[evaluation_table(run) for run in runs],
        final=final_metrics(runs),
        health=health,
        stages=_stages(runs),
        samples=rollouts,
        shown={"head": HEAD, "tail": TAIL},
        data=_data(runs, marks, [chart for part in charts.values() for chart in part], rollouts),
    )


def _data(
    runs: Sequence[ReportedRun],
    marks: Sequence[dict[str, int]],
    charts: Sequence[Chart],
    rollouts: Sequence[Row],
) -> dict[str, Any]:
    """What the page's script reads; a chart stands at its number.

    Most curves of a run have the same steps: ``steps`` holds each list of them once, and the x of a
    curve is its position there.
    """
    steps = list(dict.fromkeys(tuple(curve["x"]) for chart in charts for curve in chart.curves))
    positions = {grid: number for number, grid in enumerate(steps)}

    def at_position(curve: dict[str, Any]) -> dict[str, Any]:
        return curve | {"x": positions[tuple(curve["x"])]}

    return {
        "steps": steps,
        "runs": [{"name": run.name, **mark} for run, mark in zip(runs, marks, strict=True)],
        "charts": [
            {"title": chart.title, "log": chart.log, "limits": chart.limits}
            | {"curves": list(map(at_position, chart.curves)), "smooth": not chart.held_out}
            for chart in charts
        ],
        "samples": [{"tokens": row["tokens"], "advantage": row["advantage"]} for row in rollouts],
    }


def _title(runs: Sequence[ReportedRun]) -> str:
    methods = list(dict.fromkeys(run.method for run in runs))
    seeds = f"{len(runs)} runs" if len(runs) > 1 else "one run"
    return f"{' · '.join(methods)} – {seeds}"


def _members(runs: Sequence[ReportedRun]) -> list[list[int]]:
    """The numbers of the runs of each method."""
    methods = dict.fromkeys(run.method for run in runs)
    return [[i for i, run in enumerate(runs) if run.method == method] for method in methods]


def _marks(runs: Sequence[ReportedRun]) -> list[dict[str, int]]:
    """Colour and dash of each run: a colour for a method and a dash for each of its runs, or where
    there is only one method a colour for each run.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    if len(methods) == 1:
        return [
            {"colour": i % COLOUR_COUNT, "dash": i // COLOUR_COUNT % DASH_COUNT}
            for i, _ in enumerate(runs)
        ]
    before = [[other.method for other in runs[:i]].count(run.method) for i, run in enumerate(runs)]
    return [
        {
            "colour": methods.index(run.method) % COLOUR_COUNT,
            "dash": (methods.index(run.method) // COLOUR_COUNT + earlier) % DASH_COUNT,
        }
        for run, earlier in zip(runs, before, strict=True)
    ]


def _summary(
    run: ReportedRun, mark: dict[str, int], samples: Samples, health: Sequence[Any]
) -> dict[str, Any]:
    """What the head of the page says of a run."""
    rows = [
        (name, row[name], run.evaluations[-1].get(name))
        for row in run.evaluations[:1]
        for name in row
        if name.startswith("avg@")
    ]
    score = None
    if rows:
        name, first, last = rows[0]
        score = {"name": visible(name, kept=""), "first": told(first), "last": told(last)}
    of = "" if run.planned is None else f" of {run.planned:,}"
    states = [check.state for check in health]
    return mark | {
        "name": run.name,
        "method": run.method,
        "folder": visible(run.folder, kept=""),
        "model": run.settings.get("model.name", ""),
        "data": run.settings.get("data._target_", "").rpartition(".")[2],
        "ended": run.ended,
        "steps": f"{run.done:,}{of} rollout steps",
        "score": score,
        "notes": run.notes,
        "sample_notes": samples.notes,
        "wrong": states.count("wrong"),
        "look": states.count("look"),
    }


def _own(run: ReportedRun, defaults: Defaults | None) -> dict[str, Any] | None:
    """How a run differs from the command it began with, as rows of name, default, and its own."""
    if defaults is None or not run.settings:
        return None
    command, settings = defaults
    return {"command": command, "rows": differences([settings, run.settings])}


def _stages(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Mean seconds of each stage, with where its bar begins and ends in percent of the longest run."""
    seconds = [stage_seconds(run) for run in runs]
    longest = max((sum(found.values()) for found in seconds), default=0.0) or 1.0
    names = list(dict.fromkeys(name for found in seconds for name in found))
    bars = []
    for found in seconds:
        begin, parts = 0.0, []
        for name, value in found.items():
            width = 100 * value / longest
            parts.append({"name": name, "x": f"{begin:.3f}", "width": f"{width:.3f}"})
            parts[-1]["seconds"] = told(value)
            begin += width
        bars.append(parts)
    table = [(name, [told(found.get(name)) for found in seconds]) for name in names]
    total = [told(sum(found.values())) for found in seconds]
    return {"bars": bars, "table": table, "total": total}
