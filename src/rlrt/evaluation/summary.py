"""Everything that an evaluation of one or several models reports, as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlrt.batch import Rollout
from rlrt.bootstrap import Resampled, mean_of
from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.errors import UserError
from rlrt.evaluation.comparison import (
    Estimate,
    Result,
    estimates,
    is_weak,
    over_first,
    resample_measures,
    results,
)
from rlrt.evaluation.paper import PaperRow
from rlrt.evaluation.scores import Scores, measures, right_answers, score
from rlrt.pass_at_k import powers_of_two


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with all samples of all problems, by benchmark.

    ``paper``: its row of the paper, where it has one. ``teacher``: the same problems asked to its
    teacher view; those without a context may be missing, or stand there behind the student's prompt.
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
    def whole(self) -> bool:
        """Whether all its problems were asked: else it is another benchmark."""
        return self.problems == self.size


@dataclass(frozen=True)
class Mean:
    """The plain mean over ``benchmarks``; of pass@k those k that all of them have."""

    benchmarks: tuple[str, ...]
    whole: bool  # every one of them
    results: tuple[Result, ...]

    @property
    def of_the_six(self) -> bool:
        """Whether it is the paper's headline."""
        return self.whole and self.benchmarks == PAPER_BENCHMARKS


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
    """Of models, the first of which the others are compared with."""

    models: tuple[str, ...]
    papers: tuple[PaperRow | None, ...]
    benchmarks: tuple[BenchmarkResult, ...]
    mean: Mean | None  # None where there is one benchmark
    split: tuple[TeacherSplit, ...]  # empty where no teacher view was asked


def summarize(
    models: Sequence[EvaluatedModel], seed: int, sizes: Mapping[str, int] | None = None
) -> Summary:
    """Everything that is reported; a function of the arguments, with the seed of the bootstrap.

    ``sizes``: how many problems each benchmark has; None: so many as the models answered.
    UserError where the models did not answer the same problems equally often.
    """
    names = _benchmark_names(models)
    scores = {name: _scores(models, name) for name in names}
    values_PMV, drawn, benchmarks = {}, {}, []
    for name in names:
        answers = [one.answers for one in scores[name]]
        ks = powers_of_two(answers[0].samples)
        values_PMV[name] = np.stack([measures(one, ks) for one in answers], axis=1)
        drawn[name] = resample_measures(values_PMV[name], seed, name)
        asked, samples = len(answers[0].problem_ids), answers[0].samples
        size = asked if sizes is None else sizes[name]
        found = results(drawn[name], asked, ks)
        benchmarks.append(BenchmarkResult(name, asked, size, samples, scores[name], found))
    averages = {name: values[:, :, :1] for name, values in values_PMV.items()}
    return Summary(
        models=tuple(model.name for model in models),
        papers=tuple(model.paper for model in models),
        benchmarks=tuple(benchmarks),
        mean=_mean(benchmarks, drawn) if len(names) > 1 else None,
        split=_split(models[0], scores, averages, seed),
    )


def _benchmark_names(models: Sequence[EvaluatedModel]) -> tuple[str, ...]:
    first = models[0]
    for model in models[1:]:
        if alone := sorted(first.rollouts.keys() ^ model.rollouts.keys()):
            raise UserError(
                f"{first.name} and {model.name} cannot be compared: only one of them answered "
                f"{', '.join(alone)}"
            )
    return tuple(first.rollouts)


def _scores(models: Sequence[EvaluatedModel], name: str) -> tuple[Scores, ...]:
    found = [score(f"{model.name} on {name}", model.rollouts[name]) for model in models]
    first = found[0].answers
    for model, other in zip(models, found, strict=True):
        if other.answers.problem_ids != first.problem_ids:
            alone = sorted(set(first.problem_ids) ^ set(other.answers.problem_ids))
            raise UserError(
                f"{models[0].name} and {model.name} cannot be compared on {name}: only one of them "
                f"answered {len(alone)} of the problems, as {alone[0]}"
            )
        if other.answers.samples != first.samples:
            raise UserError(
                f"{models[0].name} and {model.name} cannot be compared on {name}: they have "
                f"{first.samples} and {other.answers.samples} samples of a problem"
            )
    return tuple(found)


def _mean(benchmarks: Sequence[BenchmarkResult], drawn: Mapping[str, Resampled]) -> Mean:
    """Over the six where all are there, and whatever else is; over all else."""
    there = {benchmark.name: benchmark for benchmark in benchmarks}
    names = PAPER_BENCHMARKS if there.keys() >= set(PAPER_BENCHMARKS) else tuple(there)
    kept = [list(there[name].results[0].pass_at) for name in names]
    ks = [k for k in kept[0] if all(k in others for others in kept)]
    parts = []
    for name, found in zip(names, kept, strict=True):
        columns = [0, 1, *(2 + found.index(k) for k in ks)]
        resampled = drawn[name]
        parts.append(Resampled(resampled.mean[:, columns], resampled.draws[:, :, columns]))
    fewest = min(there[name].problems for name in names)
    whole = all(there[name].whole for name in names)
    return Mean(names, whole, results(mean_of(parts), fewest, ks))


def _split(
    first: EvaluatedModel,
    scores: Mapping[str, Sequence[Scores]],
    averages_PM1: Mapping[str, NDArray[np.float64]],
    seed: int,
) -> tuple[TeacherSplit, ...]:
    """By the teacher view of the first model: for all benchmarks that it was asked, then for each."""
    weak: dict[str | None, list[bool | None]] = {}
    for name, rollouts in (first.teacher or {}).items():
        if name in scores:
            shown = _with_context(rollouts, first.rollouts[name])
            right = right_answers(f"the teacher view of {first.name} on {name}", shown)
            weak[name] = [is_weak(right.get(one)) for one in scores[name][0].answers.problem_ids]
    groups: dict[str | None, NDArray[np.float64]] = {
        name: averages_PM1[name] for name in averages_PM1 if name in weak
    }
    if len(groups) > 1:
        weak[None] = [one for name in groups for one in weak[name]]
        groups = {None: np.concatenate(list(groups.values())), **groups}
    return tuple(
        _part(name, kind, values[[one is kind for one in weak[name]]], seed)
        for name, values in groups.items()
        for kind in (True, False, None)
        if kind in weak[name]
    )


def _with_context(teacher: Sequence[Rollout], student: Sequence[Rollout]) -> list[Rollout]:
    """The teacher view's rollouts but those that saw no more than the student: its own, once more."""
    plain = {(one.problem.id, one.sample): one.prompt_ids for one in student}
    return [one for one in teacher if plain.get((one.problem.id, one.sample)) != one.prompt_ids]


def _part(
    name: str | None, weak: bool | None, averages_PM1: NDArray[np.float64], seed: int
) -> TeacherSplit:
    drawn = resample_measures(averages_PM1, seed, f"{name or ''} {weak}")
    problems = len(averages_PM1)
    averages, gains = estimates(drawn, problems), estimates(over_first(drawn), problems)
    return TeacherSplit(
        name,
        weak,
        problems,
        tuple(row[0] for row in averages),
        tuple(row[0] for row in gains[1:]),
    )
