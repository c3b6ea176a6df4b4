"""From rows to sets of problems, to train on and to evaluate on; what is left out is counted by reason."""

import hashlib
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from rlrt.batch import Problem, ProblemSet
from rlrt.data.rows import BadRow, Row

SHOWN_BAD_ROWS = 5
DEFAULT_SHARE = 10  # one question in ten ...
DEFAULT_LIMIT = 128  # ... and no more than this
_LOOSE_SPACE = re.compile(r"(?<!\w) | (?!\w)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """A sound row that a setting leaves out, and why."""

    reason: str


@lru_cache(2**16)  # the DAPO file of the hub asks each question about 100 times
def question_key(question: str) -> str:
    """Equal for questions that differ in white space only.

    Spaces count between two words or numbers alone ("1 23" is not "12 3"). Case and Unicode
    compatibility forms (NFKC) stay apart: A and a, 10² and 102 are different mathematics.
    """
    text = unicodedata.normalize("NFC", question)
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def convert(
    rows: Iterable[Row], to_problem: Callable[[Row], Problem | LeftOut], bad_rows: str
) -> Iterator[Problem | LeftOut]:
    """Each row as a problem or the reason why not; ``bad_rows`` is "skip" or "refuse".

    Skipped rows are logged at the end, the first few by place. Refused: ValueError with the place.
    """
    examples: list[str] = []
    total = 0
    for row in rows:
        try:
            if row.error is not None:
                raise row.error
            outcome = to_problem(row)
        except BadRow as bad:
            if bad_rows == "refuse":
                raise ValueError(f"{row.place}: {bad}") from None
            total += 1
            if len(examples) < SHOWN_BAD_ROWS:
                examples.append(f"{row.place}: {bad}")
            outcome = LeftOut(bad.reason)
        yield outcome
    if examples:
        more = f"; and {total - len(examples)} more" if total > len(examples) else ""
        _log.warning("%d bad rows skipped: %s%s", total, "; ".join(examples), more)


def gather(outcomes: Iterable[Problem | LeftOut], place: str, unique: bool = False) -> ProblemSet:
    """All problems with unique ids, and the left-out rows counted by reason.

    A repeated id gets "#2", "#3", … appended: two problems with one id are both good problems, but
    a record of rollouts must tell them apart. With ``unique`` each question stays once, the first
    of its rows; where its rows disagree about the answer all are left out, since a wrong reward is
    worse than a missing problem. ValueError naming ``place`` when nothing is left.
    """
    dropped: Counter[str] = Counter()
    kept: list[Problem] = []
    answers: dict[str, set[str]] = defaultdict(set)
    copies: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, LeftOut):
            dropped[outcome.reason] += 1
            continue
        if unique:
            key = question_key(outcome.question)
            answers[key].add(outcome.answer)
            copies[key] += 1
        if not unique or copies[key] == 1:
            kept.append(outcome)
    if unique:
        kept = [p for p in kept if len(answers[question_key(p.question)]) == 1]
        disputed = sum(copies[key] for key, different in answers.items() if len(different) > 1)
        dropped["conflicting answers"] = disputed
        dropped["duplicate"] = copies.total() - disputed - len(kept)
    dropped = +dropped  # without the reasons that hold for no row
    if not kept:
        why = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "it has no rows"
        raise ValueError(f"no problem left in {place}: {why}")
    return ProblemSet(_with_unique_ids(kept), dict(dropped))


def collect(
    rows: Iterable[Row],
    to_problem: Callable[[Row], Problem | LeftOut],
    bad_rows: str,
    place: str,
    unique: bool = False,
) -> ProblemSet:
    """The rows as problems; arguments and errors as in ``convert`` and ``gather``."""
    return gather(convert(rows, to_problem, bad_rows), place, unique)


def leave_out(
    problems: ProblemSet, reason: str, is_left_out: Callable[[Problem], bool]
) -> ProblemSet:
    """The problems that stay; the others are counted under ``reason``."""
    kept = tuple(problem for problem in problems.problems if not is_left_out(problem))
    count = len(problems.problems) - len(kept)
    return ProblemSet(kept, dict(Counter(problems.dropped) + Counter({reason: count})))


def _with_unique_ids(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    used: set[str] = set()
    copies: Counter[str] = Counter()
    result = []
    for problem in problems:
        new = problem.id
        while new in used:
            copies[problem.id] += 1
            new = f"{problem.id}#{copies[problem.id] + 1}"
        used.add(new)
        result.append(problem if new == problem.id else replace(problem, id=new))
    return tuple(result)


def split_held_out(
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
        rest = _without(train, chosen, "held out")
        return rest, ProblemSet(
            tuple(p for p in train.problems if question_key(p.question) in chosen)
        )
    questions = {question_key(problem.question) for problem in held_out.problems}
    rest = _without(train, questions, "also held out")
    if not rest.problems:
        raise ValueError("every training question is also held out; check data.held_out_path")
    if count is None:
        return rest, held_out
    surplus = questions - _first(questions, count, seed)
    return rest, _without(held_out, surplus, "beyond held_out_problems")


def _first(questions: set[str], count: int, seed: int) -> set[str]:
    def rank(question: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{question}".encode()).digest()

    return set(sorted(questions, key=rank)[:count])


def _without(problems: ProblemSet, questions: set[str], reason: str) -> ProblemSet:
    return leave_out(problems, reason, lambda p: question_key(p.question) in questions)


def optional_fields(problems: ProblemSet) -> frozenset[str]:
    """The optional fields ("solution", "feedback") that at least one of the problems has."""
    return frozenset(
        field
        for field in ("solution", "feedback")
        if any(getattr(problem, field) is not None for problem in problems.problems)
    )
