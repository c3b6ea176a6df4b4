"""How far a mean over problems would move with other problems of the same kind.

Problems are drawn with replacement and the mean is formed again, many times; the interval lies between
percentiles of these means (Efron and Tibshirani 1993, ch. 13). Means that were drawn with the same seed
saw the same problems: their difference is paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
CONFIDENCE = 0.95
CHUNK = 4_000_000  # drawn problems in memory at a time

Array = NDArray[np.float64]


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
    parts = [
        _draw_counts(random, min(rows, draws - start), problems) @ beyond_PV
        for start in range(0, draws, rows)
    ]
    drawn = first + np.concatenate(parts) / problems
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
