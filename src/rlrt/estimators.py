"""What evaluations estimate: pass@k from counts of correct answers, and how far a mean over problems would
move with other problems of the same kind.

Problems are drawn with replacement and the mean is formed again, many times; the interval lies between
percentiles of these means (Efron and Tibshirani 1993, ch. 13). Means that were drawn with the same seed
saw the same problems: their difference is paired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
CONFIDENCE = 0.95
CHUNK = 4_000_000  # drawn problems in memory at a time

Array = NDArray[np.float64]


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate ``1 - C(n-c, k) / C(n, k)`` (arXiv:2107.03374, eq. 1), as a product.

    Raises ValueError unless ``0 <= correct <= samples`` and ``1 <= k <= samples``.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(
            f"pass@k needs 0 <= correct <= samples and 1 <= k <= samples, "
            f"found samples={samples}, correct={correct}, k={k}"
        )
    if samples - correct < k:
        return 1.0
    # as a product of ratios: the binomial coefficients themselves exceed a float for large n
    return 1.0 - prod(1.0 - k / n for n in range(samples - correct + 1, samples + 1))


@dataclass(frozen=True)
class Answers:
    """Problems in the order of their ids, so that those of two models line up; each has ``samples``."""

    problem_ids: tuple[str, ...]
    samples: int
    correct_P: NDArray[np.int64]


def by_problem(answers: Iterable[tuple[str, int, bool]]) -> dict[str, dict[int, bool]]:
    """Problem id → number of the sample → correct, of (problem id, number of the sample, correct).

    ValueError where there are none, or a sample is there twice; its text goes on from whose they are.
    """
    correct_by_problem: dict[str, dict[int, bool]] = {}
    for problem, sample, correct in answers:
        if sample in correct_by_problem.setdefault(problem, {}):
            raise ValueError(
                f"holds sample {sample} of problem {problem} twice: "
                "these are the answers of more than one evaluation, or two problems share an id"
            )
        correct_by_problem[problem][sample] = correct
    if not correct_by_problem:
        raise ValueError("holds no answers")
    return correct_by_problem


def count_answers(answers: Iterable[tuple[str, int, bool]]) -> Answers:
    """The correct ones of every problem.

    ValueError as of ``by_problem``, and where problems have unequal numbers of samples.
    """
    samples = by_problem(answers)
    ids = sorted(samples)
    fewest, most = (pick(ids, key=lambda problem: len(samples[problem])) for pick in (min, max))
    if len(samples[fewest]) != len(samples[most]):
        raise ValueError(
            f"holds {len(samples[fewest])} samples of problem {fewest} and "
            f"{len(samples[most])} of {most}: every problem needs the same number"
        )
    counts = [sum(samples[problem].values()) for problem in ids]
    return Answers(tuple(ids), len(samples[fewest]), np.array(counts, np.int64))


def powers_of_two(samples: int) -> tuple[int, ...]:
    """1, 2, 4, … below ``samples``, and ``samples``."""
    return (*takewhile(lambda k: k < samples, (1 << n for n in range(64))), samples)


def pass_curve(answers: Answers, ks: Sequence[int]) -> NDArray[np.float64]:
    """Unbiased pass@k ``[P, K]`` of every problem; each possible count is worked out once."""
    counts, row_P = np.unique(answers.correct_P, return_inverse=True)
    curve_CK = [[pass_at_k(answers.samples, int(c), k) for k in ks] for c in counts]
    return np.array(curve_CK)[row_P]


@dataclass(frozen=True)
class Resampled:
    """Means over problems, of any shape, and ``[draws, …]`` the same of drawn problems."""

    mean: Array
    draws: Array

    def interval(self, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
        """Lower and upper end; both the mean where all problems are alike, or there is one."""
        outside = (1 - confidence) / 2
        low, high = np.quantile(self.draws, [outside, 1 - outside], axis=0)
        return low, high


def resample(values: Array, seed: int, draws: int = DRAWS) -> Resampled:
    """The mean of ``values`` (problems first) over problems, with its draws.

    A function of the arguments alone: which problems are drawn depends on their number and the seed.
    """
    problems, shape = len(values), values.shape[1:]
    first = values[0].reshape(-1)
    beyond_PV = values.reshape(problems, -1) - first  # all alike: exactly 0, no rounding in sums
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // problems)
    sums = [
        _draw_counts(random, min(rows, draws - start), problems) @ beyond_PV
        for start in range(0, draws, rows)
    ]
    drawn = first + np.concatenate(sums) / problems
    mean = first + beyond_PV.sum(0) / problems
    return Resampled(mean.reshape(shape), drawn.reshape(draws, *shape))


def _draw_counts(random: np.random.Generator, draws: int, problems: int) -> Array:
    """``[draws, P]``: how often each problem was drawn, P in all."""
    drawn = random.integers(0, problems, (draws, problems))
    drawn += np.arange(draws)[:, None] * problems
    counts = np.bincount(drawn.reshape(-1), minlength=draws * problems)
    return counts.reshape(draws, problems).astype(np.float64)


def mean_of(strata: Sequence[Resampled]) -> Resampled:
    """The mean over strata, each of the same weight, each with problems drawn from its own.

    Strata need seeds of their own, or they would be drawn alike.
    """
    return Resampled(
        np.mean([stratum.mean for stratum in strata], axis=0),
        np.mean([stratum.draws for stratum in strata], axis=0),
    )
