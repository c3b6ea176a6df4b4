"""avg@n and pass@k: how often each problem was answered correctly, and what follows from the counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod

import numpy as np
from numpy.typing import NDArray


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
