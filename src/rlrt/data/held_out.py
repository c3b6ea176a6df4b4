"""Which problems are kept for evaluation."""

import hashlib

from rlrt.batch import ProblemSet
from rlrt.data.questions import question_key

DEFAULT_SHARE = 10  # one question in ten ...
DEFAULT_LIMIT = 128  # ... and no more than this


def check_held_out_problems(count: int | None) -> None:
    """ValueError unless None or an integer from 0."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise ValueError(f"data.held_out_problems is {count!r}; allowed: null or an integer from 0")


def split(
    train: ProblemSet, held_out: ProblemSet | None, count: int | None, seed: int
) -> tuple[ProblemSet, ProblemSet]:
    """Train and held-out problems; no question (``question_key``) is in both.

    With a held-out set of its own, train leaves out its questions, and ``count`` limits it (None:
    all of it). Without one, ``count`` questions are split off (None: a tenth, at most 128). Which
    ones depends on the questions and the seed alone, not on the order of the rows; both parts keep
    the order of their rows. ValueError when nothing would be left to train on.
    """
    if held_out is None:
        questions = {question_key(problem.question) for problem in train.problems}
        if count is None:
            count = min(len(questions) // DEFAULT_SHARE, DEFAULT_LIMIT)
        if count >= len(questions):
            raise ValueError(
                f"data.held_out_problems is {count}, but there are only {len(questions)} "
                f"questions; allowed: 0 to {len(questions) - 1}"
            )
        chosen = _first(questions, count, seed)
        return _without(train, chosen, "held out"), ProblemSet(_only(train, chosen).problems)
    questions = {question_key(problem.question) for problem in held_out.problems}
    rest = _without(train, questions, "also held out")
    if not rest.problems:
        raise ValueError("every training question is also held out; check data.held_out_path")
    if count is None:
        return rest, held_out
    beyond = questions - _first(questions, count, seed)
    return rest, _without(held_out, beyond, "beyond held_out_problems")


def _first(questions: set[str], count: int, seed: int) -> set[str]:
    def rank(question: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{question}".encode()).digest()

    return set(sorted(questions, key=rank)[:count])


def _only(problems: ProblemSet, questions: set[str]) -> ProblemSet:
    kept = tuple(p for p in problems.problems if question_key(p.question) in questions)
    return ProblemSet(kept, problems.dropped)


def _without(problems: ProblemSet, questions: set[str], reason: str) -> ProblemSet:
    kept = tuple(p for p in problems.problems if question_key(p.question) not in questions)
    left_out = len(problems.problems) - len(kept)
    counted = {reason: left_out} if left_out else {}
    return ProblemSet(kept, {**problems.dropped, **counted})
