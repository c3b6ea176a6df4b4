"""pass@k over k: which method still finds answers when it may try often (arXiv:2605.10781, Fig. 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlrt.analysis.figures import COLOURS
from rlrt.batch import Verdict
from rlrt.errors import UserError
from rlrt.functional.answers import Answers, count_answers, pass_curve, powers_of_two
from rlrt.functional.bootstrap import resample
from rlrt.functional.seeds import derive_seed
from rlrt.records import read_table, record_files

DRAWS = 1_000
DASHES = ("-", "--", "-.", ":")  # where two curves lie on each other, both are seen


@dataclass(frozen=True)
class PassCurve:
    """Unbiased pass@k (arXiv:2107.03374, eq. 1) of a method on a benchmark, for every k of ``ks``.

    With one evaluation ``low_K`` and ``high_K`` are the 95 % bootstrap interval over problems. With
    several, runs of other seeds, ``mean_K`` is their mean, and the band reaches from the lowest to
    the highest of them.
    """

    method: str
    benchmark: str
    problems: int
    samples: int
    evaluations: int
    ks: tuple[int, ...]
    mean_K: NDArray[np.float64]
    low_K: NDArray[np.float64]
    high_K: NDArray[np.float64]


def read_answers(folder: Path) -> dict[str, Answers]:
    """The student view's answers of an evaluation's folder, by benchmark.

    UserError where it is none, where a file is no record, or where problems have unequal numbers of
    samples.
    """
    found = {}
    for path in record_files(folder):
        if path.parent.name != "records":
            raise UserError(f"{folder} is a run folder, not an evaluation's: it has no records/")
        table = read_table(path, only=["problem_id", "sample", "verdict"])
        columns = [column.to_pylist() for column in table.itercolumns()]
        answers = (
            (problem, sample, verdict == Verdict.RIGHT)
            for problem, sample, verdict in zip(*columns, strict=True)
        )
        try:
            found[path.stem] = count_answers(answers)
        except ValueError as error:
            raise UserError(f"{path} {error}") from error
    return found


def curve(
    method: str, benchmark: str, evaluations: Sequence[Answers], seed: int = 0, draws: int = DRAWS
) -> PassCurve:
    """The curve; k runs over the powers of two and the number of samples.

    UserError where the evaluations differ in their problems or in how often these were asked.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if (other.problem_ids, other.samples) != (first.problem_ids, first.samples):
            raise UserError(
                f"the evaluations of {method} on {benchmark} are no seeds of one method: they have "
                "other problems, or other numbers of samples"
            )
    ks = powers_of_two(first.samples)
    if len(evaluations) > 1:
        curves_SK = np.array([pass_curve(one, ks).mean(0) for one in evaluations])
        mean_K, low_K, high_K = curves_SK.mean(0), curves_SK.min(0), curves_SK.max(0)
    else:
        resampled = resample(pass_curve(first, ks), derive_seed(seed, benchmark), draws)
        mean_K, (low_K, high_K) = resampled.mean, resampled.interval()
    size = len(first.problem_ids), first.samples, len(evaluations)
    return PassCurve(method, benchmark, *size, ks, mean_K, low_K, high_K)


def curves(
    methods: Mapping[str, Sequence[Mapping[str, Answers]]], benchmark: str | None, seed: int = 0
) -> list[PassCurve]:
    """Of every method on ``benchmark``, or on each that the first evaluation holds.

    UserError where an evaluation lacks one of them.
    """
    first = next(iter(methods.values()))[0]
    made = []
    for name in [benchmark] if benchmark else first:
        for method, evaluations in methods.items():
            for answers in evaluations:
                if name not in answers:
                    raise UserError(
                        f"an evaluation of {method} holds no answers to {name}, only to "
                        f"{', '.join(answers)}"
                    )
            made.append(curve(method, name, [answers[name] for answers in evaluations], seed))
    return made


def rows(made: Sequence[PassCurve]) -> list[dict[str, Any]]:
    """A row per curve and k, shares of 1."""
    return [
        {
            "benchmark": one.benchmark,
            "method": one.method,
            "k": k,
            "pass_at_k": float(mean),
            "low": float(low),
            "high": float(high),
            "problems": one.problems,
            "samples": one.samples,
            "evaluations": one.evaluations,
        }
        for one in made
        for k, mean, low, high in zip(one.ks, one.mean_K, one.low_K, one.high_K, strict=True)
    ]


def draw(made: Sequence[PassCurve]) -> Figure:
    """A panel per benchmark, k on a logarithmic axis; a method has its colour in all of them."""
    benchmarks = list(dict.fromkeys(one.benchmark for one in made))
    methods = list(dict.fromkeys(one.method for one in made))
    columns = min(3, len(benchmarks))
    lines = -(-len(benchmarks) // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(1.2 + 3.6 * columns, 0.8 + 3.0 * lines),
        layout="constrained",
        squeeze=False,
    )
    for number, axes in enumerate(grid.flat):
        if number >= len(benchmarks):
            axes.set_axis_off()
            continue
        panel = [one for one in made if one.benchmark == benchmarks[number]]
        _draw_panel(axes, panel, [methods.index(one.method) for one in panel])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_panel(axes: Axes, panel: Sequence[PassCurve], numbers: Sequence[int]) -> None:
    for one, number in zip(panel, numbers, strict=True):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        axes.fill_between(one.ks, one.low_K, one.high_K, color=colour, alpha=0.15, lw=0)
        axes.plot(one.ks, one.mean_K, dash, color=colour, lw=2, label=_plain(one.method))
    ks = sorted({k for one in panel for k in one.ks})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set(title=_plain(panel[0].benchmark), xlabel="k", ylabel="pass@k")
    axes.grid(alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(name: str) -> str:
    """A name that is no formula, and hides in no legend."""
    return name.replace("$", r"\$").lstrip("_") or "_"
