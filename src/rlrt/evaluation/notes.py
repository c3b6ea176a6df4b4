"""What a reader has to know about the numbers of an evaluation."""

from collections.abc import Iterator
from itertools import chain

from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.evaluation.comparison import Estimate
from rlrt.evaluation.sheets import PAPER_CELLS, groups, paper_cell
from rlrt.evaluation.summary import Summary


def notes(summary: Summary) -> list[str]:
    """Sentences, those that always hold first."""
    return [
        "Per cent; in brackets 95 % bootstrap intervals over problems. "
        "An undecided response counts as wrong.",
        *_intervals(summary),
        *_models(summary),
        *_paper(summary),
    ]


def _intervals(summary: Summary) -> Iterator[str]:
    estimates = list(_estimates(summary))
    if any(one.low is None for one in estimates):
        yield "One problem alone has no interval, and neither has a mean over it and others."
    if any(one.is_flat for one in estimates):
        yield (
            "Where all problems of a cell are alike its interval has width 0: that is no certainty, "
            "the bootstrap knows nothing of other problems."
        )


def _estimates(summary: Summary) -> Iterator[Estimate]:
    """All that stand in tables beside an interval."""
    for result in chain.from_iterable(group.results for group in groups(summary)):
        yield from (result.average, result.solved, *([result.gain] if result.gain else []))
    for part in summary.split:
        yield from (*part.averages, *part.gains)


def _models(summary: Summary) -> Iterator[str]:
    if len(summary.models) > 1:
        yield f"Gains are over {summary.models[0]}, paired over problems."
    if summary.mean and summary.mean.benchmarks == PAPER_BENCHMARKS and not summary.mean.whole:
        yield "The mean is over parts of the six benchmarks: it is not the paper's."
    elif summary.mean and not summary.mean.of_the_six:
        yield (
            f"The mean is over the {len(summary.mean.benchmarks)} benchmarks that are here, "
            "not over the paper's six."
        )
    if any(part.weak is None for part in summary.split):
        yield (
            "No context: the teacher view saw no more than the student. Where contexts are the first "
            "model's own right samples, it has none there, and gains over it are too large."
        )


def _paper(summary: Summary) -> Iterator[str]:
    beside = [
        group for group in groups(summary) if any(paper_cell(row, group) for row in summary.papers)
    ]
    if not beside:
        return
    yield (
        f"Rows of the paper: arXiv:2605.10781, Table 1, {PAPER_CELLS}; same model and method, your "
        "settings may differ."
    )
    samples = {benchmark.samples for benchmark in summary.benchmarks if benchmark in beside}
    if others := sorted(samples - {16}):
        counts = ", ".join(map(str, others))
        yield f"Here n is {counts}, in the paper 16: pass@n cannot be compared, it grows with n."
