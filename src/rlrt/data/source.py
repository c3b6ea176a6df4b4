"""What the problem sources share: a training part, a held-out part, and what broken rows mean."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from rlrt.batch import Problem, ProblemSet
from rlrt.data.held_out import check_held_out_problems, split
from rlrt.data.questions import LeftOut, convert, gather
from rlrt.data.rows import Row


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Problems in two parts; no question is in both.

    ``held_out_problems``: see ``rlrt.data.held_out.split``. ``bad_rows``: "skip" counts broken rows,
    "refuse" stops at the first. Nothing is read before ``train`` or ``held_out`` is first asked for.
    """

    held_out_problems: int | None = None
    bad_rows: str = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        check_bad_rows(self.bad_rows)
        check_held_out_problems(self.held_out_problems)

    @property
    def provides(self) -> frozenset[str]:
        """The optional fields of a problem ("solution", "feedback") that rows may fill."""
        return frozenset()

    def train(self) -> ProblemSet:
        """The problems to train on."""
        return self._parts[0]

    def held_out(self) -> ProblemSet:
        """The problems to evaluate on."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[ProblemSet, ProblemSet]:
        return split(self.read_train(), self.read_held_out(), self.held_out_problems, self.seed)

    @abstractmethod
    def read_train(self) -> ProblemSet:
        """The training rows, before any are held out."""

    def read_held_out(self) -> ProblemSet | None:
        """A held-out set of its own; None: a share of the training rows."""
        return None


def collect(
    rows: Iterable[Row],
    to_problem: Callable[[Row], Problem | LeftOut],
    bad_rows: str,
    what: str,
    unique: bool = False,
) -> ProblemSet:
    """The rows as problems; arguments and errors as in ``convert`` and ``gather``."""
    return gather(convert(rows, to_problem, bad_rows), what, unique)


def optional_fields(problems: ProblemSet) -> frozenset[str]:
    """The optional fields ("solution", "feedback") that at least one of the problems has."""
    return frozenset(
        field
        for field in ("solution", "feedback")
        if any(getattr(problem, field) is not None for problem in problems.problems)
    )


def check_bad_rows(bad_rows: str) -> None:
    """ValueError unless "skip" or "refuse"."""
    if bad_rows not in ("skip", "refuse"):
        raise ValueError(f"data.bad_rows is {bad_rows!r}; allowed: skip, refuse")
