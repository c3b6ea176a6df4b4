"""From rows to a set of problems; what is left out on the way is counted by reason."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from rlrt.batch import Problem, ProblemSet
from rlrt.data.rows import BadRow, Row

SHOWN_BAD_ROWS = 5
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
    shown: list[str] = []
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
            if len(shown) < SHOWN_BAD_ROWS:
                shown.append(f"{row.place}: {bad}")
            outcome = LeftOut(bad.reason)
        yield outcome
    if shown:
        more = f"; and {total - len(shown)} more" if total > len(shown) else ""
        _log.warning("%d bad rows skipped: %s%s", total, "; ".join(shown), more)


def gather(outcomes: Iterable[Problem | LeftOut], what: str, unique: bool = False) -> ProblemSet:
    """All problems with unique ids, and the left-out rows counted by reason.

    A repeated id gets "#2", "#3", … appended: two problems with one id are both good problems, but
    a record of rollouts must tell them apart. With ``unique`` each question stays once, the first
    of its rows; where its rows disagree about the answer all are left out, since a wrong reward is
    worse than a missing problem. ValueError naming ``what`` when nothing is left.
    """
    dropped: Counter[str] = Counter()
    kept: list[Problem] = []
    answers: dict[str, set[str]] = {}
    copies: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, LeftOut):
            dropped[outcome.reason] += 1
            continue
        if unique:
            key = question_key(outcome.question)
            answers.setdefault(key, set()).add(outcome.answer)
            copies[key] += 1
            if copies[key] > 1:
                continue
        kept.append(outcome)
    if unique:
        sure = [p for p in kept if len(answers[question_key(p.question)]) == 1]
        disputed = sum(copies[key] for key, found in answers.items() if len(found) > 1)
        dropped["conflicting answers"] = disputed
        dropped["duplicate"] = copies.total() - disputed - len(sure)
        kept = sure
    if not kept:
        why = ", ".join(f"{reason} {n}" for reason, n in dropped.items() if n) or "it has no rows"
        raise ValueError(f"no problem left in {what}: {why}")
    return ProblemSet(_with_unique_ids(kept), {reason: n for reason, n in dropped.items() if n})


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
