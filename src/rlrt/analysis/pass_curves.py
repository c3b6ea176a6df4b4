"""pass@k over k: which method still finds answers when it may try often (arXiv:2605.10781, Fig. 8)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlrt.analysis.figures import legend_below, look, plain, tidy
from rlrt.batch import Verdict
from rlrt.errors import UserError
from rlrt.estimators import Answers, count_answers, pass_curve, powers_of_two, resample
from rlrt.records import read_table, record_files
from rlrt.seeds import derive_seed

OF_A_RUN = ("rollouts", "checkpoints", "metrics.csv", "export")


@dataclass(frozen=True)
class PassCurve:
    """Unbiased pass@k (arXiv:2107.03374, eq. 1) of a method on a benchmark, for every k of ``ks``.

    With one evaluation ``low_K`` and ``high_K`` are the 95 % bootstrap interval over problems, the
    same as in its results.json where the seed is the same. With several, runs of other seeds,
    ``mean_K`` is their mean, and the band reaches from the lowest to the highest of them.
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


def evaluations_of(folder: Path) -> dict[str, Path]:
    """The folders of evaluations that ``folder`` stands for: itself, by its name, or of a comparison
    those of its policies, by their names.

    They lie in it or, as eval.py chooses without out=, beside it. UserError where one does not.
    """
    compared = _results(folder)
    if (folder / "records").is_dir() or len(compared) < 2:
        return {folder.name: folder}
    near = [*sorted(folder.glob("*/results.json")), *sorted(folder.glob("../*/results.json"))]
    folders = [path.parent for path in near if (path.parent / "records").is_dir()]
    results_of = {path: _results(path) for path in folders}
    evaluations = {}
    for name, scores in compared.items():
        fitting = [path for path, others in results_of.items() if _agrees(scores, others.get(name))]
        if not fitting:
            raise UserError(
                f"{folder} compares {name}, whose evaluation is neither in it nor beside it: name "
                "the folders of the evaluations"
            )
        evaluations[name] = fitting[0]
    return evaluations


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    """What results.json says of pass@k by policy and benchmark; nothing where it is none."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        scores: dict[str, dict[str, Any]] = {model["name"]: {} for model in results["models"]}
        for benchmark in results["benchmarks"]:
            for one in benchmark["models"]:
                scores[one["model"]][benchmark["name"]] = one["pass_at"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return scores


def _agrees(scores: Mapping[str, Any], own: Mapping[str, Any] | None) -> bool:
    """Whether an evaluation's own results say the same of every benchmark that was compared."""
    return own is not None and all(own.get(name) == score for name, score in scores.items())


def read_answers(folder: Path) -> dict[str, Answers]:
    """The student view's answers of an evaluation's folder, by benchmark.

    UserError where it is none, where a file is no record, or where problems have unequal numbers of
    samples.
    """
    if not (folder / "records").is_dir() and any((folder / name).exists() for name in OF_A_RUN):
        raise UserError(
            f"{folder} is a run folder: evaluate it first, python src/rlrt/eval.py model={folder} "
            "benchmark=…, and name the folder that this writes"
        )
    answers_of = {}
    for path in record_files(folder):
        table = read_table(path, only=["problem_id", "sample", "verdict"])
        columns = [column.to_pylist() for column in table.itercolumns()]
        answers = (
            (problem, sample, verdict == Verdict.RIGHT)
            for problem, sample, verdict in zip(*columns, strict=True)
        )
        try:
            answers_of[path.stem] = count_answers(answers)
        except ValueError as error:
            raise UserError(f"{path} {error}") from error
    return answers_of


def curve(method: str, benchmark: str, evaluations: Sequence[Answers], seed: int = 0) -> PassCurve:
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
    curves_S = [pass_curve(answers, ks) for answers in evaluations]
    if len(evaluations) > 1:
        curves_SK = np.array([curve_PK.mean(0) for curve_PK in curves_S])
        mean_K, low_K, high_K = curves_SK.mean(0), curves_SK.min(0), curves_SK.max(0)
    else:
        # the purpose as in rlrt.evaluation.summary, which draws the same problems
        resampled = resample(curves_S[0], derive_seed(seed, f"bootstrap {benchmark}"))
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
    pass_curves = []
    for name in [benchmark] if benchmark else first:
        for method, evaluations in methods.items():
            for answers in evaluations:
                if name not in answers:
                    raise UserError(
                        f"an evaluation of {method} holds no answers to {name}, only to "
                        f"{', '.join(answers)}"
                    )
            pass_curves.append(
                curve(method, name, [answers[name] for answers in evaluations], seed)
            )
    return pass_curves


def rows(pass_curves: Sequence[PassCurve]) -> list[dict[str, Any]]:
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
        for one in pass_curves
        for k, mean, low, high in zip(one.ks, one.mean_K, one.low_K, one.high_K, strict=True)
    ]


def draw(pass_curves: Sequence[PassCurve]) -> Figure:
    """A panel per benchmark, k on a logarithmic axis; a method has its color in all of them."""
    benchmarks = list(dict.fromkeys(one.benchmark for one in pass_curves))
    methods = list(dict.fromkeys(one.method for one in pass_curves))
    columns = min(3, len(benchmarks))
    lines = -(-len(benchmarks) // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(1.2 + 3.6 * columns, 0.8 + 3.0 * lines),
        layout="constrained",
        squeeze=False,
    )
    for axes in grid.flat[len(benchmarks) :]:
        axes.set_axis_off()
    for axes, benchmark in zip(grid.flat, benchmarks, strict=False):
        panel = [one for one in pass_curves if one.benchmark == benchmark]
        _draw_panel(axes, panel, [methods.index(one.method) for one in panel])
    legend_below(figure, grid[0, 0].get_legend_handles_labels()[0])
    note = _note(pass_curves)
    figure.set_figheight(figure.get_figheight() + 0.15 * len(note.splitlines()))
    (legend,) = figure.legends
    legend.set_title(note, prop={"size": 8})
    legend.get_title().set_color("0.35")
    return figure


def _note(pass_curves: Sequence[PassCurve]) -> str:
    """What lines and bands are, and of how much."""

    def count_of(counts: set[int], what: str) -> str:
        low, high = min(counts), max(counts)
        return f"{low}{'' if low == high else f' to {high}'} {what}{'' if high == 1 else 's'}"

    lines = [
        f"{count_of({one.problems for one in pass_curves}, 'problem')}, "
        f"{count_of({one.samples for one in pass_curves}, 'sample')} of each"
    ]
    seeds = {one.evaluations for one in pass_curves}
    if several := seeds - {1}:
        lines.append(f"mean of {count_of(several, 'seed')}, band from lowest to highest")
    if 1 in seeds:
        only = "of one evaluation: " if several else ""
        lines.append(f"{only}band of 95 %, bootstrap over problems")
    return "\n".join(lines)


def _draw_panel(axes: Axes, panel: Sequence[PassCurve], numbers: Sequence[int]) -> None:
    for one, number in zip(panel, numbers, strict=True):
        style = look(number)
        axes.fill_between(one.ks, one.low_K, one.high_K, color=style["color"], alpha=0.15, lw=0)
        axes.plot(one.ks, one.mean_K, lw=2, ms=4, label=plain(one.method), **style)
    ks = sorted({k for one in panel for k in one.ks})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set(title=plain(panel[0].benchmark), xlabel="k", ylabel="pass@k")
    tidy(axes)
