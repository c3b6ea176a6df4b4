"""What the tables of an evaluation say, cell by cell, before they are shown anywhere.

Laid out as Tables 1 and 3 of the paper: a row per model or method, a column per benchmark, cells
``avg@n / pass@n`` in per cent. Beside it stand the figures of the paper's Table 1; those of its Table 3
are not known here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.evaluation.comparison import WEAK_BELOW, Estimate, Result
from rlrt.evaluation.paper import PaperCell, PaperRow
from rlrt.evaluation.summary import BenchmarkResult, Mean, Summary

NONE = "–"
PAPER_CELLS = "avg@16 / pass@16"
WEAK = {True: f"< {float(WEAK_BELOW):.0%}", False: f"≥ {float(WEAK_BELOW):.0%}", None: "no context"}


@dataclass(frozen=True)
class Sheet:
    """A table before it is shown. The first ``names`` columns hold names.

    A cell's lines may also stand beside each other, with a space between.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int


def sheets(summary: Summary) -> Iterator[Sheet]:
    """Table 1's layout first, then what it has no room for, and the split where there is one."""
    yield _overview(summary)
    yield _details(summary)
    yield _passes(summary)
    yield _responses(summary)
    if summary.split:
        yield _weak_and_strong(summary)


def _overview(summary: Summary) -> Sheet:
    columns = groups(summary)
    counts = {benchmark.samples for benchmark in summary.benchmarks}
    n = counts.pop() if len(counts) == 1 else "n"
    rows = []
    for model, (name, paper) in enumerate(zip(summary.models, summary.papers, strict=True)):
        found = [group.results[model] for group in columns]
        rows.append([name, *(_pair(one.average.value, one.solved.value) for one in found)])
        cells = [paper_cell(paper, group) for group in columns]
        if paper and any(cells):
            pairs = [_pair(cell.average, cell.solved) if cell else NONE for cell in cells]
            rows.append([f"{paper.model} {paper.method}: {PAPER_CELLS} of the paper", *pairs])
    return Sheet(f"avg@{n} / pass@{n}", ["model", *map(_heading, columns)], rows, 1)


def _details(summary: Summary) -> Sheet:
    rows = [
        [*names, _told(result.average), _told(result.gain, "+"), _told(result.solved)]
        for names, result in _results(summary)
    ]
    return Sheet("with intervals", ["benchmark", "model", "avg@n", "gain", "pass@n"], rows, 2)


def _passes(summary: Summary) -> Sheet:
    ks = sorted({k for _, result in _results(summary) for k in result.pass_at})
    rows = [
        [*names, *(_percent(found[k].value) if k in found else NONE for k in ks)]
        for names, result in _results(summary)
        for found in [result.pass_at]
    ]
    return Sheet("unbiased pass@k", ["benchmark", "model", *(f"k={k}" for k in ks)], rows, 2)


def _responses(summary: Summary) -> Sheet:
    headings = ["benchmark", "model", "problems", "samples", "tokens", "cut", "undecided"]
    rows = [
        [
            *(_heading(one) if number == 0 else "", model),
            *(str(one.problems), str(one.samples), f"{score.tokens:.0f}"),
            *(_percent(score.truncated), _percent(score.undecided)),
        ]
        for one in summary.benchmarks
        for number, (model, score) in enumerate(zip(summary.models, one.scores, strict=True))
    ]
    title = "responses: mean length, share cut at the limit, share undecided"
    return Sheet(title, headings, rows, 2)


def _weak_and_strong(summary: Summary) -> Sheet:
    rows = []
    for part in summary.split:
        names = [_shown(part.benchmark or "all"), WEAK[part.weak]]
        gains = [None, *part.gains]
        for model, average, gain in zip(summary.models, part.averages, gains, strict=True):
            rows.append([*names, model, str(part.problems), _told(average), _told(gain, "+")])
            names = ["", ""]
    headings = ["benchmark", "teacher view", "model", "problems", "avg@n", "gain"]
    title = f"by the share of its samples that the teacher view of {summary.models[0]} solves"
    return Sheet(title, headings, rows, 3)


def _results(summary: Summary) -> Iterator[tuple[list[str], Result]]:
    """Benchmark and model, and the result; the benchmark's name stands before its first model."""
    for group in groups(summary):
        for number, (model, result) in enumerate(zip(summary.models, group.results, strict=True)):
            yield [_heading(group) if number == 0 else "", model], result


def groups(summary: Summary) -> list[BenchmarkResult | Mean]:
    """All that has a column of Table 1: the benchmarks, and their mean where there are several."""
    return [*summary.benchmarks, *([summary.mean] if summary.mean else [])]


def _heading(group: BenchmarkResult | Mean) -> str:
    if isinstance(group, Mean):
        return "mean of\nthe six" if group.of_the_six else f"mean of\n{len(group.benchmarks)}"
    cut = "" if group.whole else f"\n({group.problems} of {group.size})"
    return f"{_shown(group.name)}{cut}"


def _shown(benchmark: str) -> str:
    """As the paper writes its six, and any other as it is."""
    return benchmark.upper() if benchmark in PAPER_BENCHMARKS else benchmark


def paper_cell(row: PaperRow | None, group: BenchmarkResult | Mean) -> PaperCell | None:
    """The paper's figures for the same benchmark or mean; None where it has none, or asked more."""
    if row is None or not group.whole:
        return None
    return row.mean(group.benchmarks) if isinstance(group, Mean) else row.cells.get(group.name)


def _percent(share: float, sign: str = "") -> str:
    return format(round(100 * share, 1) + 0.0, f"{sign}.1f")  # + 0.0: no minus before a zero


def _pair(average: float, solved: float) -> str:
    return f"{_percent(average)}\n/ {_percent(solved)}"


def _told(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return NONE
    value, low, high = estimate.value, estimate.low, estimate.high
    if low is None or high is None:
        return f"{_percent(value, sign)}\n{NONE}"
    return f"{_percent(value, sign)}\n[{_percent(low, sign)}, {_percent(high, sign)}]"
