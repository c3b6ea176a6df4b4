"""What a model's responses to a benchmark came to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rlrt.batch import Rollout, Verdict
from rlrt.errors import UserError
from rlrt.pass_at_k import Answers, by_problem, count_answers, pass_curve

Answered = Iterable[tuple[str, int, bool]]
Read = TypeVar("Read")


@dataclass(frozen=True)
class Scores:
    """Correct answers per problem, and of all responses: mean length in tokens, two shares."""

    answers: Answers
    tokens: float
    truncated: float  # cut at the limit
    undecided: float  # by the verifier; they count as wrong


def score(whose: str, rollouts: Sequence[Rollout]) -> Scores:
    """What counts is the verdict, not what a setting pays for it.

    UserError, naming ``whose`` they are, where ``count_answers`` refuses them.
    """
    return Scores(
        _read(whose, count_answers, rollouts),
        fmean(len(rollout.response.ids) for rollout in rollouts),
        fmean(rollout.response.truncated for rollout in rollouts),
        fmean(rollout.verdict is Verdict.UNDECIDED for rollout in rollouts),
    )


def right_answers(whose: str, rollouts: Sequence[Rollout]) -> dict[str, list[bool]]:
    """By problem, whether each of its samples is right; problems may have unequal numbers of them."""
    found = _read(whose, by_problem, rollouts) if rollouts else {}
    return {problem: list(samples.values()) for problem, samples in found.items()}


def _read(whose: str, read: Callable[[Answered], Read], rollouts: Sequence[Rollout]) -> Read:
    try:
        return read((r.problem.id, r.sample, r.verdict is Verdict.RIGHT) for r in rollouts)
    except ValueError as error:
        raise UserError(f"{whose} {error}") from error


def measures(answers: Answers, ks: Sequence[int]) -> NDArray[np.float64]:
    """``[P, 2 + K]``: avg@n, pass@n (any of n right), and unbiased pass@k."""
    curve_PK = pass_curve(answers, ks)
    average_P = answers.correct_P / answers.samples
    solved_P = (answers.correct_P > 0).astype(np.float64)
    return np.column_stack([average_P, solved_P, curve_PK])
