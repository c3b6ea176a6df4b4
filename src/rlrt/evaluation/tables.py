"""The tables of an evaluation: cell by cell, as Markdown, as JSON, and on a screen as wide as that is.

Laid out as Tables 1 and 3 of the paper (arXiv:2605.10781): a row per model or method, a column per
benchmark, cells ``avg@n / pass@n`` in per cent. Beside it stand the figures of the paper's Table 1; those
of its Table 3 are not known here. Names come from files and folders: they are printed as they are, never
interpreted.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.evaluation.paper import PaperCell, PaperRow
from rlrt.evaluation.summary import (
    WEAK_BELOW,
    BenchmarkResult,
    Estimate,
    Mean,
    Result,
    Summary,
    TeacherSplit,
)

LEAST_NAME = 14  # characters of a column of names
PIECE = re.compile(r"[^/_\- ]*[/_\- ]?")
Columns = list[list[list[str]]]  # lines of every cell, heading first
NONE = "–"
PAPER_CELLS = "avg@16 / pass@16"
WEAK = {True: f"< {float(WEAK_BELOW):.0%}", False: f"≥ {float(WEAK_BELOW):.0%}", None: "no context"}


@dataclass(frozen=True)
class TableData:
    """A table before it is laid out. The first ``names`` columns hold names.

    A cell's lines may also stand beside each other, with a space between.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int


def tables_of(summary: Summary) -> Iterator[TableData]:
    """Table 1's layout first, then what it has no room for, and the split where there is one."""
    yield _overview(summary)
    yield _details(summary)
    yield _passes(summary)
    yield _responses(summary)
    if summary.split:
        yield _weak_and_strong(summary)


def _overview(summary: Summary) -> TableData:
    groups = groups_of(summary)
    counts = {benchmark.samples for benchmark in summary.benchmarks}
    n = counts.pop() if len(counts) == 1 else "n"
    rows = []
    for model, (name, paper) in enumerate(zip(summary.models, summary.papers, strict=True)):
        results = [group.results[model] for group in groups]
        rows.append([name, *(_pair(x.average.value, x.solved.value) for x in results)])
        cells = [paper_cell(paper, group) for group in groups]
        if paper and any(cells):
            pairs = [_pair(cell.average, cell.solved) if cell else NONE for cell in cells]
            rows.append([f"{paper.model} {paper.method}: {PAPER_CELLS} of the paper", *pairs])
    return TableData(f"avg@{n} / pass@{n}", ["model", *map(_heading, groups)], rows, 1)


def _details(summary: Summary) -> TableData:
    rows = [
        [*names, _cell(result.average), _cell(result.gain, "+"), _cell(result.solved)]
        for names, result in _results(summary)
    ]
    return TableData("with intervals", ["benchmark", "model", "avg@n", "gain", "pass@n"], rows, 2)


def _passes(summary: Summary) -> TableData:
    passes = [(names, result.pass_at) for names, result in _results(summary)]
    ks = sorted({k for _, pass_at in passes for k in pass_at})
    rows = [
        [*names, *(_percent(pass_at[k].value) if k in pass_at else NONE for k in ks)]
        for names, pass_at in passes
    ]
    return TableData("unbiased pass@k", ["benchmark", "model", *(f"k={k}" for k in ks)], rows, 2)


def _responses(summary: Summary) -> TableData:
    headings = ["benchmark", "model", "problems", "samples", "tokens", "cut", "undecided"]
    rows = [
        [
            *(_heading(benchmark) if number == 0 else "", model),
            *(str(benchmark.problems), str(benchmark.samples), f"{score.tokens:.0f}"),
            *(_percent(score.truncated), _percent(score.undecided)),
        ]
        for benchmark in summary.benchmarks
        for number, (model, score) in enumerate(zip(summary.models, benchmark.scores, strict=True))
    ]
    title = "responses: mean length, share cut at the limit, share undecided"
    return TableData(title, headings, rows, 2)


def _weak_and_strong(summary: Summary) -> TableData:
    rows = []
    for part in summary.split:
        names = [_display_name(part.benchmark or "all"), WEAK[part.weak]]
        gains = [None, *part.gains]
        for model, average, gain in zip(summary.models, part.averages, gains, strict=True):
            rows.append([*names, model, str(part.problems), _cell(average), _cell(gain, "+")])
            names = ["", ""]
    headings = ["benchmark", "teacher view", "model", "problems", "avg@n", "gain"]
    title = f"by the share of its samples that the teacher view of {summary.models[0]} solves"
    return TableData(title, headings, rows, 3)


def _results(summary: Summary) -> Iterator[tuple[list[str], Result]]:
    """Benchmark and model, and the result; the benchmark's name stands before its first model."""
    for group in groups_of(summary):
        for number, (model, result) in enumerate(zip(summary.models, group.results, strict=True)):
            yield [_heading(group) if number == 0 else "", model], result


def groups_of(summary: Summary) -> list[BenchmarkResult | Mean]:
    """All that has a column of Table 1: the benchmarks, and their mean where there are several."""
    return [*summary.benchmarks, *([summary.mean] if summary.mean else [])]


def _heading(group: BenchmarkResult | Mean) -> str:
    if isinstance(group, Mean):
        return "mean of\nthe six" if group.is_headline else f"mean of\n{len(group.benchmarks)}"
    cut = "" if group.is_complete else f"\n({group.problems} of {group.size})"
    return f"{_display_name(group.name)}{cut}"


def _display_name(benchmark: str) -> str:
    """As the paper writes its six, and any other as it is."""
    return benchmark.upper() if benchmark in PAPER_BENCHMARKS else benchmark


def paper_cell(row: PaperRow | None, group: BenchmarkResult | Mean) -> PaperCell | None:
    """The paper's figures for the same benchmark or mean; None where it has none, or asked more."""
    if row is None or not group.is_complete:
        return None
    return row.mean(group.benchmarks) if isinstance(group, Mean) else row.cells.get(group.name)


def _percent(share: float, sign: str = "") -> str:
    return format(round(100 * share, 1) + 0.0, f"{sign}.1f")  # + 0.0: no minus before a zero


def _pair(average: float, solved: float) -> str:
    return f"{_percent(average)}\n/ {_percent(solved)}"


def _cell(estimate: Estimate | None, sign: str = "") -> str:
    """An estimate with its interval, in two lines."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        interval = NONE
    else:
        interval = f"[{_percent(estimate.low, sign)}, {_percent(estimate.high, sign)}]"
    return f"{_percent(estimate.value, sign)}\n{interval}"


def notes(summary: Summary) -> list[str]:
    """Sentences that a reader of the numbers needs; those that always hold come first."""
    return [
        "Per cent; in brackets 95 % bootstrap intervals over problems. "
        "An undecided response counts as wrong.",
        *_notes_on_intervals(summary),
        *_notes_on_models(summary),
        *_notes_on_paper(summary),
    ]


def _notes_on_intervals(summary: Summary) -> Iterator[str]:
    estimates = list(_estimates(summary))
    if any(estimate.low is None for estimate in estimates):
        yield "One problem alone has no interval, and neither has a mean over it and others."
    if any(estimate.is_flat for estimate in estimates):
        yield (
            "Where all problems of a cell are alike its interval has width 0: that is no certainty, "
            "the bootstrap knows nothing of other problems."
        )


def _estimates(summary: Summary) -> Iterator[Estimate]:
    """All that stand in tables beside an interval."""
    for group in groups_of(summary):
        for result in group.results:
            yield from (result.average, result.solved, *([result.gain] if result.gain else []))
    for part in summary.split:
        yield from (*part.averages, *part.gains)


def _notes_on_models(summary: Summary) -> Iterator[str]:
    if len(summary.models) > 1:
        yield f"Gains are over {summary.models[0]}, paired over problems."
    if summary.mean and not summary.mean.is_headline:
        if summary.mean.benchmarks == PAPER_BENCHMARKS:
            yield "The mean is over parts of the six benchmarks: it is not the paper's."
        else:
            yield (
                f"The mean is over the {len(summary.mean.benchmarks)} benchmarks that are here, "
                "not over the paper's six."
            )
    if any(part.weak is None for part in summary.split):
        yield (
            "No context: the teacher view saw no more than the student. Where contexts are the first "
            "model's own right samples, it has none there, and gains over it are too large."
        )


def _notes_on_paper(summary: Summary) -> Iterator[str]:
    compared = [
        group
        for group in groups_of(summary)
        if any(paper_cell(row, group) for row in summary.papers)
    ]
    if not compared:
        return
    yield (
        f"Rows of the paper: arXiv:2605.10781, Table 1, {PAPER_CELLS}; same model and method, your "
        "settings may differ."
    )
    samples = {benchmark.samples for benchmark in summary.benchmarks if benchmark in compared}
    if others := sorted(samples - {16}):
        counts = ", ".join(map(str, others))
        yield f"Here n is {counts}, in the paper 16: pass@n cannot be compared, it grows with n."


def markdown(summary: Summary) -> str:
    """All tables and notes, a heading over each table."""
    tables = [f"### {_escaped(table.title)}\n\n{_pipes(table)}" for table in tables_of(summary)]
    return "\n\n".join([*tables, *(_escaped(note) for note in notes(summary))]) + "\n"


def as_json(summary: Summary) -> dict[str, Any]:
    """Plain values; all shares are of 1, the paper's too. pass@k is keyed by k as a word."""
    split = {
        "weak_below": float(WEAK_BELOW),
        "parts": [_split_as_json(part, summary.models) for part in summary.split],
    }
    return {
        "models": [
            {"name": name, "paper": None if row is None else f"{row.model} {row.method}"}
            for name, row in zip(summary.models, summary.papers, strict=True)
        ],
        "benchmarks": [_benchmark_as_json(benchmark, summary) for benchmark in summary.benchmarks],
        "mean": summary.mean
        and {
            "benchmarks": list(summary.mean.benchmarks),
            "of_the_six": summary.mean.is_headline,
            "models": _results_as_json(summary.mean, summary),
        },
        "split": split if summary.split else None,
        "notes": notes(summary),
    }


def _pipes(table: TableData) -> str:
    rows = [
        list(map(_escaped, table.headings)),
        ["---"] * table.names + ["---:"] * (len(table.headings) - table.names),
        *(
            [
                *map(_escaped, row[: table.names]),
                *(" ".join(c.split("\n")) for c in row[table.names :]),
            ]
            for row in table.rows
        ),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line. An underscore within a word is no markup."""
    safe = html.escape(printable(text), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", safe)


def _benchmark_as_json(benchmark: BenchmarkResult, summary: Summary) -> dict[str, Any]:
    results = _results_as_json(benchmark, summary)
    return {
        "name": benchmark.name,
        "problems": benchmark.problems,
        "of": benchmark.size,
        "samples": benchmark.samples,
        "models": [
            {
                **result,
                "tokens_mean": score.tokens,
                "truncated": score.truncated,
                "undecided": score.undecided,
            }
            for result, score in zip(results, benchmark.scores, strict=True)
        ],
    }


def _results_as_json(group: BenchmarkResult | Mean, summary: Summary) -> list[dict[str, Any]]:
    rows = []
    for model, row, result in zip(summary.models, summary.papers, group.results, strict=True):
        cell = paper_cell(row, group)
        pass_at = {str(k): asdict(estimate) for k, estimate in result.pass_at.items()}
        values = asdict(result) | {"pass_at": pass_at}
        rows.append({"model": model, **values, "paper": None if cell is None else asdict(cell)})
    return rows


def _split_as_json(part: TeacherSplit, models: Sequence[str]) -> dict[str, Any]:
    gains = [None, *map(asdict, part.gains)]
    return {
        "benchmark": part.benchmark,
        "weak": part.weak,
        "problems": part.problems,
        "models": [
            {"model": model, "average": asdict(average), "gain": gain}
            for model, average, gain in zip(models, part.averages, gains, strict=True)
        ],
    }


def screen(summary: Summary, width: int) -> list[RenderableType]:
    """For a console of so many characters; narrower than about 60 they are cut off.

    Lines of a cell stand beside each other where there is room for it. Names give way first: they go on
    in a further line, after a slash, an underscore or a hyphen, and what is still too long loses its
    middle. Where the numbers alone are too wide, their columns are shared out among several tables.
    """
    parts: list[RenderableType] = []
    for table in tables_of(summary):
        parts.append(Text(f"\n{printable(table.title)}", style="bold"))
        parts += [_table(columns, table.names) for columns in _laid_out(table, width)]
    return [*parts, *(Text(printable(note)) for note in notes(summary))]


def _laid_out(table: TableData, width: int) -> list[Columns]:
    """The columns of one table, or of the fewest with the same names that fit."""
    stacked = [
        [[printable(line) for line in cell.split("\n")] for cell in cells]
        for cells in zip(table.headings, *table.rows, strict=True)
    ]
    beside = [[[" ".join(cell)] for cell in column] for column in stacked]
    if _width(beside) <= width:
        return [beside]
    layouts = [(stacked, 1)]
    for tables in range(2, len(stacked) - table.names + 1):
        layouts += [(beside, tables), (stacked, tables)]
    for columns, tables in layouts:
        names, numbers = columns[: table.names], columns[table.names :]
        ends = [round(len(numbers) * n / tables) for n in range(tables + 1)]
        parts = [numbers[start:end] for start, end in pairwise(ends)]
        width_left = min(width - _width(part) for part in parts) - 2 * len(names)
        if width_left >= LEAST_NAME * len(names):
            break
    narrow = _narrowed(names, width_left)
    return [[*narrow, *part] for part in parts]


def _width(columns: Columns) -> int:
    """Characters of the table: rich puts a space to the right of every column and a border beside it."""
    return sum(_longest(column) + 2 for column in columns) + 1


def _longest(column: Sequence[Sequence[str]]) -> int:
    return max(cell_len(line) for cell in column for line in cell)


def _narrowed(names: Columns, width_left: int) -> Columns:
    """Columns of names that take ``width_left`` characters together: the widest give way first."""
    widths = [_longest(column) for column in names]
    while sum(widths) > width_left and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return [
        [[part for line in cell for part in folded(line, width)] for cell in column]
        for column, width in zip(names, widths, strict=True)
    ]


def folded(name: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken where the name has a joint."""
    lines = [""]
    for piece in PIECE.findall(name):
        if cell_len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(_without_middle(piece, width))
    return [line.rstrip() for line in lines if line.strip()] or [""]


def _without_middle(text: str, width: int) -> str:
    if cell_len(text.rstrip()) <= width:
        return text
    middle = len(text) // 2
    head, tail = text[:middle], text[middle:]
    while cell_len(head + "…" + tail) > width and (head or tail):
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return head + "…" + tail


def _table(columns: Columns, names: int) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for number, (heading, *_) in enumerate(columns):
        justify: JustifyMethod = "left" if number < names else "right"
        table.add_column(Text("\n".join(heading)), justify=justify, no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*(Text("\n".join(cell)) for cell in row))
    return table
