"""The tables of an evaluation as Markdown and as JSON.

Names come from files and folders: they are shown as they are, never interpreted.
"""

import html
import re
from dataclasses import asdict
from typing import Any

from rlrt.evaluation.comparison import WEAK_BELOW, Result
from rlrt.evaluation.notes import notes
from rlrt.evaluation.paper import PaperRow
from rlrt.evaluation.screen import plain
from rlrt.evaluation.sheets import Sheet, paper_cell, sheets
from rlrt.evaluation.summary import BenchmarkResult, Mean, Summary, TeacherSplit


def markdown(summary: Summary) -> str:
    """All tables and notes, a heading over each table."""
    tables = [f"### {_escaped(sheet.title)}\n\n{_pipes(sheet)}" for sheet in sheets(summary)]
    return "\n\n".join([*tables, *(_escaped(note) for note in notes(summary))]) + "\n"


def as_json(summary: Summary) -> dict[str, Any]:
    """Plain values; all shares are of 1, the paper's too. pass@k is keyed by k as a word."""
    return {
        "models": [
            {"name": name, "paper": None if row is None else f"{row.model} {row.method}"}
            for name, row in zip(summary.models, summary.papers, strict=True)
        ],
        "benchmarks": [_benchmark(benchmark, summary) for benchmark in summary.benchmarks],
        "mean": summary.mean and _mean(summary.mean, summary),
        "split": {
            "weak_below": float(WEAK_BELOW),
            "parts": [_part(part, summary) for part in summary.split],
        }
        if summary.split
        else None,
        "notes": notes(summary),
    }


def _pipes(sheet: Sheet) -> str:
    rows = [
        list(map(_escaped, sheet.headings)),
        ["---"] * sheet.names + ["---:"] * (len(sheet.headings) - sheet.names),
        *(
            [
                *map(_escaped, row[: sheet.names]),
                *(" ".join(c.split("\n")) for c in row[sheet.names :]),
            ]
            for row in sheet.rows
        ),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line. An underscore within a word is no markup."""
    safe = html.escape(plain(text), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", safe)


def _benchmark(benchmark: BenchmarkResult, summary: Summary) -> dict[str, Any]:
    models = _results(benchmark, summary)
    for found, score in zip(models, benchmark.scores, strict=True):
        found |= {
            "tokens_mean": score.tokens,
            "truncated": score.truncated,
            "undecided": score.undecided,
        }
    return {
        "name": benchmark.name,
        "problems": benchmark.problems,
        "of": benchmark.size,
        "samples": benchmark.samples,
        "models": models,
    }


def _mean(mean: Mean, summary: Summary) -> dict[str, Any]:
    return {
        "benchmarks": list(mean.benchmarks),
        "of_the_six": mean.of_the_six,
        "models": _results(mean, summary),
    }


def _results(group: BenchmarkResult | Mean, summary: Summary) -> list[dict[str, Any]]:
    def row(name: str, paper: PaperRow | None, result: Result) -> dict[str, Any]:
        cell = paper_cell(paper, group)
        values = asdict(result)
        values["pass_at"] = {str(k): value for k, value in values["pass_at"].items()}
        return {"model": name, **values, "paper": None if cell is None else asdict(cell)}

    return [
        row(*three) for three in zip(summary.models, summary.papers, group.results, strict=True)
    ]


def _part(part: TeacherSplit, summary: Summary) -> dict[str, Any]:
    gains = [None, *(asdict(gain) for gain in part.gains)]
    averages = [asdict(average) for average in part.averages]
    return {
        "benchmark": part.benchmark,
        "weak": part.weak,
        "problems": part.problems,
        "models": [
            {"model": model, "average": average, "gain": gain}
            for model, average, gain in zip(summary.models, averages, gains, strict=True)
        ],
    }
