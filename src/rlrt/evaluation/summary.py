"""What an evaluation of one or several models reports, as numbers.

Differences between models are paired over problems: both models are measured on the same drawn problems,
so that how hard these happen to be drops out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rlrt.batch import Rollout, Verdict
from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.errors import UserError
from rlrt.estimators import (
    Answers,
    Resampled,
    by_problem,
    count_answers,
    mean_of,
    pass_curve,
    powers_of_two,
    resample,
)
from rlrt.evaluation.paper import PaperRow
from rlrt.seeds import derive_seed

WEAK_BELOW = Fraction(3, 5)  # of its samples right: there the teacher view is weak


@dataclass(frozen=True)
class Scores:
    """Correct answers per problem, and of all responses: mean length in tokens, two shares."""

    answers: Answers
    tokens: float
    truncated: float  # cut at the limit
    undecided: float  # by the verifier; they count as wrong


def measures(answers: Answers, ks: Sequence[int]) -> NDArray[np.float64]:
    """``[P, 2 + K]``: avg@n, pass@n (any of n right), and unbiased pass@k."""
    curve_PK = pass_curve(answers, ks)
    average_P = answers.correct_P / answers.samples
    solved_P = (answers.correct_P > 0).astype(np.float64)
    return np.column_stack([average_P, solved_P, curve_PK])


@dataclass(frozen=True)
class Estimate:
    """A share of 1, or a difference of two, and its 95 % interval; None where one problem is all."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_flat(self) -> bool:
        """Whether all problems are alike: the bootstrap cannot say how sure the value is."""
        return self.low is not None and self.low == self.high


@dataclass(frozen=True)
class Result:
    """A model on a benchmark, or on the mean of several; the gains are over the first model."""

    average: Estimate  # avg@n
    solved: Estimate  # pass@n, any of n right
    pass_at: Mapping[int, Estimate]  # unbiased
    gain: Estimate | None  # of avg@n; None of the first model itself
    solved_gain: Estimate | None  # of pass@n


def results(resampled: Resampled, problems: int, ks: Sequence[int]) -> tuple[Result, ...]:
    """A result per model, of means ``[M, 2 + K]`` in the order of ``measures``."""
    values = estimates(resampled, problems)
    gains = estimates(differences_to_first(resampled), problems)
    return tuple(
        Result(
            average=average,
            solved=solved,
            pass_at=dict(zip(ks, passes, strict=True)),
            gain=gain[0] if model else None,
            solved_gain=gain[1] if model else None,
        )
        for model, ((average, solved, *passes), gain) in enumerate(zip(values, gains, strict=True))
    )


def differences_to_first(resampled: Resampled) -> Resampled:
    """Paired differences to the first model."""
    return Resampled(resampled.mean - resampled.mean[:1], resampled.draws - resampled.draws[:, :1])


def estimates(resampled: Resampled, problems: int) -> list[list[Estimate]]:
    """Estimates ``[M][V]`` of means ``[M, V]`` over so many ``problems``.

    With several strata ``problems`` is the number of the smallest: one problem alone has no interval.
    """
    if problems == 1:
        return [[Estimate(float(value), None, None) for value in row] for row in resampled.mean]
    low_MV, high_MV = resampled.interval()
    return [
        [Estimate(*map(float, three)) for three in zip(*rows, strict=True)]
        for rows in zip(resampled.mean, low_MV, high_MV, strict=True)
    ]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with all samples of all problems, by benchmark.

    ``paper``: its row of the paper, where it has one. ``teacher``: the same problems asked to its
    teacher view; those without a context may be missing, or stand there with the student's prompt.
    """

    name: str
    paper: PaperRow | None
    rollouts: Mapping[str, Sequence[Rollout]]
    teacher: Mapping[str, Sequence[Rollout]] | None


@dataclass(frozen=True)
class BenchmarkResult:
    """What all models came to on the same ``problems``, each asked ``samples`` times.

    The benchmark has ``size`` problems.
    """

    name: str
    problems: int
    size: int
    samples: int
    scores: tuple[Scores, ...]  # per model
    results: tuple[Result, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all its problems were asked: else the score is none on this benchmark."""
        return self.problems == self.size


@dataclass(frozen=True)
class Mean:
    """The plain mean over ``benchmarks``; of pass@k those k that all of them have."""

    benchmarks: tuple[str, ...]
    is_complete: bool  # whether every one of them is
    results: tuple[Result, ...]

    @property
    def is_headline(self) -> bool:
        """Whether it is the paper's headline: the mean over all of its six benchmarks."""
        return self.is_complete and self.benchmarks == PAPER_BENCHMARKS


@dataclass(frozen=True)
class TeacherSplit:
    """Problems of a benchmark (None: of all together) by how the first model's teacher view fares.

    ``weak``: right in less than 60 % of its samples; False: in at least as many; None: it has none,
    for want of a context. Its samples are none of those that are compared, so that choosing by them
    favors no model. Where contexts are the first model's own right samples, though, a problem
    without one is one that this model got wrong: gains there are too large.
    """

    benchmark: str | None
    weak: bool | None
    problems: int
    averages: tuple[Estimate, ...]  # avg@n, per model
    gains: tuple[Estimate, ...]  # over the first model, per model but the first


@dataclass(frozen=True)
class Summary:
    """The results of models; all others are compared with the first."""

    models: tuple[str, ...]
    papers: tuple[PaperRow | None, ...]
    benchmarks: tuple[BenchmarkResult, ...]
    mean: Mean | None  # None where there is one benchmark
    split: tuple[TeacherSplit, ...]  # empty where no teacher view was asked


def summarize(
    models: Sequence[EvaluatedModel], seed: int, sizes: Mapping[str, int] | None = None
) -> Summary:
    """Everything that is reported; a function of the arguments, with the seed of the bootstrap.

    ``sizes``: how many problems each benchmark has; None: as many as the models answered.
    UserError where the models did not answer the same problems equally often.
    """
    names = _benchmark_names(models)
    averages_PM1, drawn, benchmarks = {}, {}, []
    for name in names:
        scores = _scores(models, name)
        problems, samples = len(scores[0].answers.problem_ids), scores[0].answers.samples
        ks = powers_of_two(samples)
        measures_PMV = np.stack([measures(x.answers, ks) for x in scores], axis=1)
        averages_PM1[name] = measures_PMV[:, :, :1]
        drawn[name] = _resample(measures_PMV, seed, name)
        size = problems if sizes is None else sizes[name]
        per_model = results(drawn[name], problems, ks)
        benchmarks.append(BenchmarkResult(name, problems, size, samples, scores, per_model))
    return Summary(
        models=tuple(model.name for model in models),
        papers=tuple(model.paper for model in models),
        benchmarks=tuple(benchmarks),
        mean=_mean(benchmarks, drawn) if len(names) > 1 else None,
        split=_split(models[0], benchmarks, averages_PM1, seed),
    )


def _resample(measures_PMV: NDArray[np.float64], seed: int, name: str) -> Resampled:
    """Means ``[M, V]``: problems are drawn for all models together, for every ``name`` anew."""
    return resample(measures_PMV, derive_seed(seed, f"bootstrap {name}"))


def _benchmark_names(models: Sequence[EvaluatedModel]) -> tuple[str, ...]:
    first = models[0]
    for model in models[1:]:
        if only_one := sorted(first.rollouts.keys() ^ model.rollouts.keys()):
            raise UserError(
                f"{first.name} and {model.name} cannot be compared: only one of them answered "
                f"{', '.join(only_one)}"
            )
    return tuple(first.rollouts)


def _scores(models: Sequence[EvaluatedModel], name: str) -> tuple[Scores, ...]:
    """The scores on one benchmark, comparable; what counts is the verdict, not the reward."""
    scores = []
    for model in models:
        rollouts = model.rollouts[name]
        with _refused_by_name(f"{model.name} on {name}"):
            answers = count_answers(map(_answer, rollouts))
        scores.append(
            Scores(
                answers,
                fmean(len(rollout.response.ids) for rollout in rollouts),
                fmean(rollout.response.truncated for rollout in rollouts),
                fmean(rollout.verdict is Verdict.UNDECIDED for rollout in rollouts),
            )
        )
    first = scores[0].answers
    for model, other in zip(models, scores, strict=True):
        if other.answers.problem_ids != first.problem_ids:
            only_one = sorted(set(first.problem_ids) ^ set(other.answers.problem_ids))
            raise UserError(
                f"{models[0].name} and {model.name} cannot be compared on {name}: only one of them "
                f"answered {len(only_one)} of the problems, as {only_one[0]}"
            )
        if other.answers.samples != first.samples:
            raise UserError(
                f"{models[0].name} and {model.name} cannot be compared on {name}: they have "
                f"{first.samples} and {other.answers.samples} samples of a problem"
            )
    return tuple(scores)


def _mean(benchmarks: Sequence[BenchmarkResult], drawn: Mapping[str, Resampled]) -> Mean:
    """Over the paper's six where all of them are here; else over all that are here."""
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    names = PAPER_BENCHMARKS if by_name.keys() >= set(PAPER_BENCHMARKS) else tuple(by_name)
    ks_of = [list(by_name[name].results[0].pass_at) for name in names]
    ks = [k for k in ks_of[0] if all(k in others for others in ks_of)]
    parts = []
    for name, own_ks in zip(names, ks_of, strict=True):
        columns = [0, 1, *(2 + own_ks.index(k) for k in ks)]  # as ``measures`` orders them
        resampled = drawn[name]
        parts.append(Resampled(resampled.mean[:, columns], resampled.draws[:, :, columns]))
    fewest = min(by_name[name].problems for name in names)
    is_complete = all(by_name[name].is_complete for name in names)
    return Mean(names, is_complete, results(mean_of(parts), fewest, ks))


def _split(
    first: EvaluatedModel,
    benchmarks: Sequence[BenchmarkResult],
    averages_PM1: Mapping[str, NDArray[np.float64]],
    seed: int,
) -> tuple[TeacherSplit, ...]:
    """By the teacher view of the first model: for all benchmarks that it was asked, then for each."""
    weak: dict[str | None, list[bool | None]] = {}
    groups: dict[str | None, NDArray[np.float64]] = {}
    for benchmark in benchmarks:
        name, problem_ids = benchmark.name, benchmark.scores[0].answers.problem_ids
        if first.teacher is not None and name in first.teacher:
            weak_by_problem = _weak_problems(first, name, first.teacher[name])
            weak[name] = [weak_by_problem.get(problem) for problem in problem_ids]
            groups[name] = averages_PM1[name]
    if len(groups) > 1:
        weak[None] = [is_weak for name in groups for is_weak in weak[name]]
        groups = {None: np.concatenate(list(groups.values())), **groups}
    return tuple(
        _part(name, kind, values[[is_weak is kind for is_weak in weak[name]]], seed)
        for name, values in groups.items()
        for kind in (True, False, None)
        if kind in weak[name]
    )


def _weak_problems(
    model: EvaluatedModel, benchmark: str, teacher: Sequence[Rollout]
) -> dict[str, bool]:
    """By problem, whether the teacher view is weak there; problems may have unequally many samples.

    Rollouts that have the student's own prompt had no context, and do not count.
    """
    prompts = {(x.problem.id, x.sample): x.prompt_ids for x in model.rollouts[benchmark]}
    informed = [x for x in teacher if prompts.get((x.problem.id, x.sample)) != x.prompt_ids]
    if not informed:
        return {}
    with _refused_by_name(f"the teacher view of {model.name} on {benchmark}"):
        answers = by_problem(map(_answer, informed))
    return {
        problem: Fraction(sum(samples.values()), len(samples)) < WEAK_BELOW
        for problem, samples in answers.items()
    }


def _answer(rollout: Rollout) -> tuple[str, int, bool]:
    return rollout.problem.id, rollout.sample, rollout.verdict is Verdict.RIGHT


@contextmanager
def _refused_by_name(name: str) -> Iterator[None]:
    """A UserError that begins with the name, for answers that cannot be counted."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{name} {error}") from error


def _part(
    name: str | None, weak: bool | None, averages_PM1: NDArray[np.float64], seed: int
) -> TeacherSplit:
    drawn = _resample(averages_PM1, seed, f"{name or ''} {weak}")
    problems = len(averages_PM1)
    averages, gains = estimates(drawn, problems), estimates(differences_to_first(drawn), problems)
    return TeacherSplit(
        name,
        weak,
        problems,
        tuple(row[0] for row in averages),
        tuple(row[0] for row in gains[1:]),
    )
