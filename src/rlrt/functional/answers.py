"""How often each problem was answered correctly, and what follows for pass@k."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from rlrt.functional.pass_at_k import pass_at_k


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
    found: dict[str, dict[int, bool]] = {}
    for problem, sample, correct in answers:
        if sample in found.setdefault(problem, {}):
            raise ValueError(
                f"holds sample {sample} of problem {problem} twice: "
                "these are the answers of more than one evaluation, or two problems share an id"
            )
        found[problem][sample] = correct
    if not found:
        raise ValueError("holds no answers")
    return found


def count_answers(answers: Iterable[tuple[str, int, bool]]) -> Answers:
    """The correct ones of every problem.

    ValueError as of ``by_problem``, and where problems have unequal numbers of samples.
    """
    found = by_problem(answers)
    ids = sorted(found)
    fewest, most = (pick(ids, key=lambda one: len(found[one])) for pick in (min, max))
    if len(found[fewest]) != len(found[most]):
        raise ValueError(
            f"holds {len(found[fewest])} samples of problem {fewest} and "
            f"{len(found[most])} of {most}: every problem needs the same number"
        )
    counts = [sum(found[one].values()) for one in ids]
    return Answers(tuple(ids), len(found[fewest]), np.array(counts, np.int64))


def powers_of_two(samples: int) -> tuple[int, ...]:
    """1, 2, 4, … below ``samples``, and ``samples``."""
    return (*takewhile(lambda k: k < samples, (1 << n for n in range(64))), samples)


def pass_curve(answers: Answers, ks: Sequence[int]) -> NDArray[np.float64]:
    """Unbiased pass@k ``[P, K]`` of every problem; each possible count is worked out once."""
    counts, row_P = np.unique(answers.correct_P, return_inverse=True)
    curve_CK = [[pass_at_k(answers.samples, int(c), k) for k in ks] for c in counts]
    return np.array(curve_CK)[row_P]
