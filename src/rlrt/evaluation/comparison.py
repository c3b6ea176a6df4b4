"""Models that answered the same problems: what each came to, and how far it is from the first.

Differences are paired over problems: both models are measured on the same drawn problems, so that how
hard these happen to be drops out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rlrt.bootstrap import Resampled, resample
from rlrt.seeds import derive_seed

WEAK_BELOW = Fraction(3, 5)  # of its samples right: there the teacher view is weak


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


def resample_measures(measures_PMV: NDArray[np.float64], seed: int, name: str) -> Resampled:
    """Means ``[M, V]`` of all models; problems are drawn for all models together.

    Every ``name`` has draws of its own.
    """
    return resample(measures_PMV, derive_seed(seed, f"bootstrap {name}"))


def results(resampled: Resampled, problems: int, ks: Sequence[int]) -> tuple[Result, ...]:
    """A result per model, of means ``[M, 2 + K]`` in the order of ``scores.measures``."""
    values, gains = estimates(resampled, problems), estimates(over_first(resampled), problems)
    return tuple(
        Result(
            average=row[0],
            solved=row[1],
            pass_at=dict(zip(ks, row[2:], strict=True)),
            gain=gain[0] if model else None,
            solved_gain=gain[1] if model else None,
        )
        for model, (row, gain) in enumerate(zip(values, gains, strict=True))
    )


def over_first(resampled: Resampled) -> Resampled:
    """Paired differences to the first model."""
    return Resampled(resampled.mean - resampled.mean[:1], resampled.draws - resampled.draws[:, :1])


def estimates(resampled: Resampled, problems: int) -> list[list[Estimate]]:
    """Of means ``[M, V]`` over so many problems (of the smallest of several strata), model by model."""
    if problems == 1:
        return [[Estimate(float(value), None, None) for value in row] for row in resampled.mean]
    low_MV, high_MV = resampled.interval()
    return [
        [Estimate(*map(float, three)) for three in zip(*rows, strict=True)]
        for rows in zip(resampled.mean, low_MV, high_MV, strict=True)
    ]


def is_weak(right: Sequence[bool] | None) -> bool | None:
    """Whether the teacher view solves less than 60 % of these samples of a problem; None of none."""
    return None if right is None else Fraction(sum(right), len(right)) < WEAK_BELOW
