"""What the problem sources share: a training part, a held-out part, and what broken rows mean."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from rlrt.batch import Problem, ProblemSet
from rlrt.data.benchmarks import Benchmark, read_problem_file
from rlrt.data.contamination import DEFAULT_SIMILARITY, check_similarity, overlaps
from rlrt.data.held_out import check_held_out_problems, split
from rlrt.data.questions import LeftOut, convert, gather
from rlrt.data.rows import Row, check_file, read_hub
from rlrt.hub import find_commit, refuse_unused


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Problems in two parts; no question is in both.

    ``held_out_problems``: see ``rlrt.data.held_out.split``. ``bad_rows``: "skip" counts broken rows,
    "refuse" stops at the first. ``overlap_with``: evaluation problems, as benchmarks (read from
    ``overlap_folder``, else the hub) or files; training problems that are "exact" or "near" to one
    of them at ``overlap_similarity`` are left out (``rlrt.data.contamination``). Nothing is read
    before ``train`` or ``held_out`` is first asked for.
    """

    held_out_problems: int | None = None
    bad_rows: str = "skip"
    seed: int = 0
    overlap_with: Sequence[str | Benchmark] = ()
    overlap_folder: str | None = None
    overlap_similarity: float = DEFAULT_SIMILARITY

    def __post_init__(self) -> None:
        if isinstance(self.overlap_with, str):
            raise ValueError(f"data.overlap_with is {self.overlap_with!r}; give a list")
        for evaluated in self.overlap_with:
            if isinstance(evaluated, str):
                check_file(evaluated, "data.overlap_with")
        if self.overlap_folder is not None and all(isinstance(x, str) for x in self.overlap_with):
            raise ValueError(
                f"data.overlap_folder is {self.overlap_folder!r}, but data.overlap_with names no "
                "benchmark to read from it"
            )
        check_similarity(self.overlap_similarity, "data.overlap_similarity")
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
        train = self._without_overlaps(self.read_train())
        return split(train, self.read_held_out(), self.held_out_problems, self.seed)

    def _without_overlaps(self, train: ProblemSet) -> ProblemSet:
        evaluated = [
            problem
            for where in self.overlap_with
            for problem in (
                read_problem_file(where, "data.overlap_with")
                if isinstance(where, str)
                else where.read(self.overlap_folder)
            ).problems
        ]
        found = overlaps(train.problems, evaluated, self.overlap_similarity) if evaluated else []
        same = {overlap.train_id for overlap in found if overlap.kind != "variant"}
        kept = tuple(problem for problem in train.problems if problem.id not in same)
        if not kept:
            raise ValueError("every training problem overlaps data.overlap_with; check its files")
        counted = Counter({"overlap": len(train.problems) - len(kept)}) + Counter(train.dropped)
        return ProblemSet(kept, dict(counted))

    @abstractmethod
    def read_train(self) -> ProblemSet:
        """The training rows, before any are held out."""

    def read_held_out(self) -> ProblemSet | None:
        """A held-out set of its own; None: a share of the training rows."""
        return None


@dataclass(frozen=True, kw_only=True)
class HubSource(Source):
    """Problems of a data set on the hub, or of local copies of it, which have no revisions.

    ``revision`` is a branch, a tag or a commit; ``commit`` what that stood for when the run began.
    """

    revision: str | None = None
    commit: str | None = None

    @property
    @abstractmethod
    def repository(self) -> str:
        """The data set's name on the hub."""

    @property
    def local(self) -> str:
        """The setting that names a local copy; empty where the problems come from the hub."""
        return ""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unused(self.revision, self.commit, "data", self.local)

    def pinned(self) -> Self:
        """The same source at the commit that its revision now stands for, where that can be known.

        ValueError where there is no such revision.
        """
        if self.local or self.commit is not None:
            return self
        found = find_commit(self.repository, "dataset", self.revision, "data.revision")
        return replace(self, commit=found)

    def rows(self, config: str | None, part: str) -> Iterator[Row]:
        """The rows of one split, of the commit where it is known."""
        return read_hub(self.repository, config, part, revision=self.commit or self.revision)


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
