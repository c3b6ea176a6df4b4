"""The tables of an evaluation: on the screen, as Markdown, as JSON.

Names come from files and folders: they are shown as they are, never interpreted.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rlrt.evaluation.comparison import WEAK_BELOW, Result
from rlrt.evaluation.paper import PaperRow
from rlrt.evaluation.sheets import Sheet, notes, paper_cell, sheets
from rlrt.evaluation.summary import Benchmark, Mean, Part, Summary

COLUMNS = 7  # of numbers that fit beside each other in 80 characters: the six and their mean


def screen(summary: Summary) -> list[RenderableType]:
    """For the console; wide tables are cut so that 80 characters hold them."""
    tables = [_table(part) for sheet in sheets(summary) for part in _cut(sheet)]
    return [*tables, *(Text(_plain(note)) for note in notes(summary))]


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


def _plain(text: str) -> str:
    """Without what a terminal obeys."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _cut(sheet: Sheet) -> Iterator[Sheet]:
    numbers = len(sheet.headings) - sheet.names
    for start in range(sheet.names, sheet.names + numbers, COLUMNS):
        part = slice(start, start + COLUMNS)
        yield Sheet(
            sheet.title,
            [*sheet.headings[: sheet.names], *sheet.headings[part]],
            [[*row[: sheet.names], *row[part]] for row in sheet.rows],
            sheet.names,
        )


def _table(sheet: Sheet) -> Table:
    title = Text(_plain(sheet.title), style="bold")
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for number, heading in enumerate(sheet.headings):
        name = number < sheet.names  # names are folded, numbers never
        justify: JustifyMethod = "left" if name else "right"
        table.add_column(_lines(heading), justify=justify, overflow="fold", no_wrap=not name)
    for row in sheet.rows:
        table.add_row(*map(_lines, row))
    return table


def _lines(cell: str) -> Text:
    return Text("\n".join(_plain(line) for line in cell.split("\n")))


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
    safe = html.escape(_plain(text), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", safe)


def _benchmark(benchmark: Benchmark, summary: Summary) -> dict[str, Any]:
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
        "samples": benchmark.samples,
        "models": models,
    }


def _mean(mean: Mean, summary: Summary) -> dict[str, Any]:
    return {
        "benchmarks": list(mean.benchmarks),
        "of_the_six": mean.of_the_six,
        "models": _results(mean, summary),
    }


def _results(group: Benchmark | Mean, summary: Summary) -> list[dict[str, Any]]:
    def plain(name: str, paper: PaperRow | None, result: Result) -> dict[str, Any]:
        cell = paper_cell(paper, group)
        values = asdict(result)
        values["pass_at"] = {str(k): value for k, value in values["pass_at"].items()}
        return {"model": name, **values, "paper": None if cell is None else asdict(cell)}

    return [
        plain(*three) for three in zip(summary.models, summary.papers, group.results, strict=True)
    ]


def _part(part: Part, summary: Summary) -> dict[str, Any]:
    gains = [None, *(asdict(gain) for gain in part.gains)]
    averages = [asdict(average) for average in part.averages]
    return {
        "benchmark": part.benchmark,
        "weak": part.weak,
        "problems": part.problems,
        "models": [
            {"model": model, "average": average, "gain": gain}
            for model, average, gain in zip(summary.models, averages, gains, strict=True)
        ]
        if part.problems
        else [],
    }
