"""One page about one or several runs: what differs, how they learned, what they wrote, how they are.

Everything on it is read from run folders; where a folder lacks something, the page says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlrt.analysis.pages import Pieces, render, visible
from rlrt.analysis.report_numbers import (
    LARGEST_GAP,
    Chart,
    checks,
    evaluation_table,
    final_metrics,
    format_number,
    json_number,
    sections,
    stage_seconds,
    sync_limit,
)
from rlrt.analysis.runs import ReportedRun, Settings, by_method, differences
from rlrt.errors import UserError
from rlrt.records import FIELDS, TOKENS, read_table, record_files

PAIRS = 2  # problems of which a right and a wrong response are shown
LOOKED_AT = 5  # record files at most, from the last one back
HEAD, TAIL = 800, 400  # tokens shown of a longer response
CHARACTERS = 8000  # of a question or of a response without its tokens
NUMBERS = ("student_logprobs", "teacher_logprobs", "student_entropy", "credit", "distillation")
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        *FIELDS,
        ("advantage", pa.float64()),
        *((name, TOKENS) for name in NUMBERS),
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """What the records of a run show. ``weights``: the importance weights student ÷ engine of the last
    recorded step's tokens whose student view was read, at 0, 1, 50, 99 and 100 %, with their number
    and the step; None where there are none.
    """

    rollouts: list[Row]
    weights: dict[str, Any] | None
    notes: tuple[str, ...]


def samples_of(folder: Path, pieces: Pieces | None) -> Samples:
    """Right and wrong responses to the same problem, from the last steps where some token has credit;
    where no problem has both, the last right and the last wrong ones.

    ``pieces`` splits a response into its tokens' texts; without it, or where it does not know the
    ids, the text is shown as one piece. ``notes`` say what cannot be read.
    """
    try:
        files = record_files(folder)[-LOOKED_AT:]
    except UserError:
        return Samples([], None, ("there are no records of rollouts (record_rollouts=false?)",))
    notes: list[str] = []
    pairs: list[Row] = []
    spare: list[Row] = []
    weights = None
    for path in reversed(files):
        try:
            table = _checked(path)
        except UserError as error:
            notes.append(visible(str(error).replace(str(path), path.name), kept=""))
            continue
        weights = weights or importance_weights(table)
        if len(pairs) < 2 * PAIRS:
            pairs += _pairs(table, PAIRS - len(pairs) // 2)
        if len(spare) < 2:
            verdicts, had = table["verdict"].to_pylist(), {row["verdict"] for row in spare}
            wanted = [v for v in ("right", "wrong") if v in verdicts and v not in had]
            spare += _rows(table, list(map(verdicts.index, wanted)))
        if len(pairs) == 2 * PAIRS:
            break
    if len(notes) > 1:
        notes = [notes[0], f"{len(notes) - 1} more of the last {len(files)} files cannot be read"]
    return Samples([_display(row, pieces) for row in pairs or spare], weights, tuple(notes))


def _checked(path: Path) -> pa.Table:
    """A file's records with the types of this version; UserError where it has others."""
    table = read_table(path, also=[name for name in SCHEMA.names if name not in dict(FIELDS)])
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
        table.validate(full=True)  # text that is no UTF-8
        if table["step"].null_count:
            raise UserError(f"{path} is a record of another format: rows of no step")
    except pa.ArrowException as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} is a record of another format ({why})") from error
    return table


def importance_weights(table: pa.Table) -> dict[str, Any] | None:
    """``exp(student − engine)`` over the response tokens whose student view was read."""
    scored = table.filter(table["student_logprobs"].is_valid())
    student, engine = (
        scored[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("student_logprobs", "engine_logprobs")
    )
    if not len(student) or len(student) != len(engine):
        return None
    weights = np.exp(np.minimum(student - engine, 700.0))  # float64 overflows above 709
    return {
        "step": table["step"][0].as_py(),
        "tokens": len(weights),
        "marks": np.quantile(weights, [0, 0.01, 0.5, 0.99, 1]).tolist(),
        "values": weights,
    }


def _moved(table: pa.Table) -> np.ndarray:
    """Of each row, whether any of its tokens has credit or is distilled."""
    moved = np.zeros(len(table), bool)
    for name in ("credit", "distillation"):
        lists = table[name].combine_chunks()
        values = lists.values.to_numpy(zero_copy_only=False)
        counts = np.concatenate([[0], np.cumsum(np.nan_to_num(values) != 0)])
        ends = lists.offsets.to_numpy()
        moved |= counts[ends[1:]] > counts[ends[:-1]]
    return moved


def _pairs(table: pa.Table, most: int) -> list[Row]:
    """A right and a wrong rollout of each of the first groups that have both and some credit."""
    verdicts, groups = table["verdict"].to_pylist(), table["group"].to_pylist()
    first: dict[tuple[int, bool], int] = {}
    for row in np.flatnonzero(_moved(table)).tolist():
        first.setdefault((groups[row], verdicts[row] == "right"), row)
    both = [group for group, right in first if right and (group, False) in first][:most]
    return _rows(table, [first[group, right] for group in both for right in (True, False)])


def _rows(table: pa.Table, numbers: list[int]) -> list[Row]:
    return table.take(pa.array(numbers, pa.int64())).to_pylist()


def _display(row: Row, pieces: Pieces | None) -> Row:
    """A rollout as the page shows it, all its text visible, the middle of a long one left out."""
    ids = row["response_ids"]
    texts = pieces(ids, row["response"]) if pieces is not None else None
    length = len(ids)
    skipped = max(length - HEAD - TAIL, 0)

    def ends(values: list[Any]) -> list[Any]:
        return values if not skipped else values[:HEAD] + values[length - TAIL :]

    tokens: Row | None = None
    if texts is not None:
        tokens = {"text": ends(texts), "id": ends(ids), "head": HEAD, "skipped": skipped}
        tokens |= {
            name: [None if v is None else json_number(v) for v in ends(row[name])]
            for name in NUMBERS
            if row[name] is not None
        }
    advantage = row["advantage"]
    return {name: row[name] for name in ("step", "sample", "truncated")} | {
        "length": length,
        "reward": format_number(row["reward"]),
        "penalty": format_number(row["penalty"]) if row["penalty"] else "",
        "advantage": None if advantage is None else json_number(advantage),
        "advantage_text": format_number(advantage),
        "verdict": visible(row["verdict"], kept=""),
        "problem": visible(row["problem_id"], kept=""),
        "source": visible(row["source"], kept=""),
        "question": _limited(row["question"]),
        "answer": _limited(row["answer"]),
        "response": _limited(row["response"]),
        "tokens": tokens,
    }


def _limited(text: str) -> str:
    left_out = len(text) - CHARACTERS
    text_start = visible(text[:CHARACTERS])
    return text_start if left_out <= 0 else f"{text_start}\n… {left_out:,} more characters"


COLOR_COUNT, DASH_COUNT = 6, 4  # that report.css has classes for
Defaults = tuple[str, Settings]  # the command whose settings they are


def page(
    runs: Sequence[ReportedRun],
    samples: Sequence[Samples],
    defaults: Sequence[Defaults | None],
) -> str:
    """The report as HTML; for every run its samples, and the settings to compare its own with where
    there are some.
    """
    limits = {limit for column, limit in map(sync_limit, runs) if column == LARGEST_GAP}
    charts = sections(runs, sorted(limit for limit in limits if limit is not None))
    methods = list(dict.fromkeys(run.method for run in runs))
    members = [[i for i, run in enumerate(runs) if run.method == method] for method in methods]
    marks = _marks(runs, methods)
    health = checks(runs, [sample.weights for sample in samples])
    between = differences([run.settings for run in runs])
    rollouts = [row | {"run": i} for i, sample in enumerate(samples) for row in sample.rollouts]
    summaries = [
        _summary(run, mark, part, [row[2][number] for row in health])
        for number, (run, mark, part) in enumerate(zip(runs, marks, samples, strict=True))
    ]
    return render(
        "report",
        title=f"{' · '.join(methods)} – {len(runs)} runs"
        if len(runs) > 1
        else f"{methods[0]} – one run",
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


def _marks(runs: Sequence[ReportedRun], methods: Sequence[str]) -> list[dict[str, int]]:
    """Color and dash of each run: a color for a method and a dash for each of its runs, or where
    there is only one method a color for each run.
    """
    if len(methods) == 1:
        return [
            {"color": i % COLOR_COUNT, "dash": i // COLOR_COUNT % DASH_COUNT}
            for i, _ in enumerate(runs)
        ]
    before = [[other.method for other in runs[:i]].count(run.method) for i, run in enumerate(runs)]
    return [
        {
            "color": methods.index(run.method) % COLOR_COUNT,
            "dash": (methods.index(run.method) // COLOR_COUNT + earlier) % DASH_COUNT,
        }
        for run, earlier in zip(runs, before, strict=True)
    ]


def _summary(
    run: ReportedRun, mark: dict[str, int], samples: Samples, health: Sequence[Any]
) -> dict[str, Any]:
    """What the head of the page says of a run."""
    score = None
    first, last = (run.evaluations[0], run.evaluations[-1]) if run.evaluations else ({}, {})
    if name := next((name for name in first if name.startswith("avg@")), None):
        score = {
            "name": visible(name, kept=""),
            "first": format_number(first[name]),
            "last": format_number(last.get(name)),
        }
    goal = "" if run.planned is None else f" of {run.planned:,}"
    states = [check.state for check in health]
    return mark | {
        "name": run.name,
        "method": run.method,
        "folder": visible(run.folder, kept=""),
        "model": run.settings.get("model.name", ""),
        "data": run.settings.get("data._target_", "").rpartition(".")[2],
        "ended": run.ended,
        "steps": f"{run.done:,}{goal} rollout steps",
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
    longest = max((sum(stages.values()) for stages in seconds), default=0.0) or 1.0
    names = list(dict.fromkeys(name for stages in seconds for name in stages))
    bars = []
    for stages in seconds:
        begin, bar = 0.0, []
        for name, value in stages.items():
            width = 100 * value / longest
            place = {"x": f"{begin:.3f}", "width": f"{width:.3f}"}
            bar.append({"name": name, "seconds": format_number(value), **place})
            begin += width
        bars.append(bar)
    table = [(name, [format_number(stages.get(name)) for stages in seconds]) for name in names]
    total = [format_number(sum(stages.values())) for stages in seconds]
    return {"bars": bars, "table": table, "total": total}
