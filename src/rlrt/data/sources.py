"""Problem sources: a training part and a held-out part, from a local file or a hub data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt

from rlrt.batch import ProblemSet
from rlrt.data.benchmarks import Benchmark, read_problem_file
from rlrt.data.contamination import DEFAULT_SIMILARITY, Similarity, overlaps
from rlrt.data.problems import collect, leave_out, optional_fields, split_held_out
from rlrt.data.rows import Columns, Row, check_file, read_file, read_hub, require_columns
from rlrt.hub import find_commit, is_local, refuse_unused
from rlrt.validation import validated

HeldOutProblems = Annotated[
    NonNegativeInt | None, Field(description="allowed: null or an integer from 0")
]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Problems in two parts; no question is in both.

    ``held_out_problems``: see ``rlrt.data.problems.split_held_out``. ``bad_rows``: "skip" counts broken rows,
    "refuse" stops at the first. ``overlap_with``: evaluation problems, as benchmarks (read from
    ``overlap_folder``, else the hub) or files; training problems that are "exact" or "near" to one
    of them at ``overlap_similarity`` are left out (``rlrt.data.contamination``). Nothing is read
    before ``train`` or ``held_out`` is first asked for. Subclasses are ``validated``.
    """

    held_out_problems: HeldOutProblems = None
    bad_rows: str = "skip"
    seed: int = 0
    overlap_with: Sequence[str | Benchmark] = ()
    overlap_folder: str | None = None
    overlap_similarity: Similarity = DEFAULT_SIMILARITY

    def __post_init__(self) -> None:
        for evaluated in self.overlap_with:
            if isinstance(evaluated, str):
                check_file(evaluated, "data.overlap_with")
        if self.overlap_folder is not None and all(isinstance(x, str) for x in self.overlap_with):
            raise ValueError(
                f"data.overlap_folder is {self.overlap_folder!r}, but data.overlap_with names no "
                "benchmark to read from it"
            )
        if self.bad_rows not in ("skip", "refuse"):
            raise ValueError(f"data.bad_rows is {self.bad_rows!r}; allowed: skip, refuse")

    @property
    def provides(self) -> frozenset[str]:
        """The optional fields of a problem ("solution", "feedback") that rows may fill."""
        return frozenset()

    def train(self) -> ProblemSet:
        return self._train_and_held_out[0]

    def held_out(self) -> ProblemSet:
        return self._train_and_held_out[1]

    @cached_property
    def _train_and_held_out(self) -> tuple[ProblemSet, ProblemSet]:
        train = self._without_overlaps(self.read_train())
        return split_held_out(train, self.read_held_out(), self.held_out_problems, self.seed)

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
        pairs = overlaps(train.problems, evaluated, self.overlap_similarity) if evaluated else []
        same = {overlap.train_id for overlap in pairs if overlap.kind != "variant"}
        kept = leave_out(train, "overlap", lambda problem: problem.id in same)
        if not kept.problems:
            raise ValueError("every training problem overlaps data.overlap_with; check its files")
        return kept

    @abstractmethod
    def read_train(self) -> ProblemSet:
        """The training rows, before any are held out."""

    def read_held_out(self) -> ProblemSet | None:
        """A held-out set of its own; None: a share of the training rows."""
        return None


@dataclass(frozen=True, kw_only=True)
class HubSource(Source):
    """Problems of the data set ``name`` on the hub, or of a local copy of it, which has no revisions.

    ``revision`` is a branch, a tag or a commit; ``commit`` what that stood for when the run began.
    """

    name: str
    revision: str | None = None
    commit: str | None = None

    @property
    def local_setting(self) -> str:
        """The setting that names a local copy; empty where the problems come from the hub."""
        return "data.name" if is_local(self.name) else ""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unused(self.revision, self.commit, "data", self.local_setting)

    def pinned(self) -> Self:
        """The same source at the commit that its revision now stands for, where that can be known.

        ValueError where there is no such revision.
        """
        if self.local_setting or self.commit is not None:
            return self
        commit = find_commit(self.name, "dataset", self.revision, "data.revision")
        return replace(self, commit=commit)

    def rows(self, config: str | None, split: str) -> Iterator[Row]:
        """The rows of one split, of the commit where it is known."""
        return read_hub(self.name, config, split, revision=self.commit or self.revision)


@dataclass(frozen=True)
class HubOrFile(HubSource):
    """A published data set, from the hub or from a local copy of its training part."""

    path: str | None = None  # null: from the hub

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None:
            check_file(self.path, "data.path")

    @property
    def local_setting(self) -> str:
        return "data.path" if self.path is not None else ""

    def rows(self, config: str | None, split: str) -> Iterator[Row]:
        if self.path is None:
            return super().rows(config, split)
        return read_file(check_file(self.path, "data.path"))


@dataclass(frozen=True, kw_only=True)
class NamedColumns(Source):
    """A table whose columns have names; a name may be a dotted path (``rlrt.data.rows.Columns``)."""

    question_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = "id"
    solution_column: str | None = None
    feedback_column: str | None = None
    source: str | None = None  # null: the name of the file or of the data set

    @property
    def columns(self) -> Columns:
        """Where a problem's fields stand."""
        return Columns(
            self.question_column,
            self.answer_column,
            self.id_column,
            self.solution_column,
            self.feedback_column,
        )

    @property
    def provides(self) -> frozenset[str]:
        named = {"solution": self.solution_column, "feedback": self.feedback_column}
        return frozenset(field for field, column in named.items() if column is not None)

    def read_train(self) -> ProblemSet:
        """The training rows; ValueError where a named optional column is empty in all of them."""
        problems = self.read_rows()
        for field in sorted(self.provides - optional_fields(problems)):
            raise ValueError(
                f"data.{field}_column is {getattr(self, f'{field}_column')!r}, and no training row "
                "has text there"
            )
        return problems

    @abstractmethod
    def read_rows(self) -> ProblemSet:
        """The training rows as they stand."""


@validated("data")
@dataclass(frozen=True)
class FileProblems(NamedColumns):
    """Problems of a local file, or of a folder that ``Dataset.save_to_disk`` wrote.

    Files are checked for existence here and read when first asked for problems.
    """

    path: str
    held_out_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_file(self.path, "data.path")
        if self.held_out_path is not None:
            check_file(self.held_out_path, "data.held_out_path")

    def read_rows(self) -> ProblemSet:
        return self._read(self.path)

    def read_held_out(self) -> ProblemSet | None:
        return None if self.held_out_path is None else self._read(self.held_out_path)

    def _read(self, path: str) -> ProblemSet:
        file = check_file(path, "path")
        source = file.name.split(".")[0] if self.source is None else self.source
        to_problem = partial(self.columns.problem, source=source)
        rows = require_columns(read_file(file), self.columns, str(file))
        return collect(rows, to_problem, self.bad_rows, str(file))


@validated("data")
@dataclass(frozen=True)
class HubProblems(HubSource, NamedColumns):
    """Problems of a hub data set."""

    name: str
    config: str | None = None
    split: str = "train"
    held_out_split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ValueError("data.name is empty; it names a data set such as 'openai/gsm8k'")

    def read_rows(self) -> ProblemSet:
        return self._read(self.split)

    def read_held_out(self) -> ProblemSet | None:
        return None if self.held_out_split is None else self._read(self.held_out_split)

    def _read(self, split: str) -> ProblemSet:
        to_problem = partial(self.columns.problem, source=self.source or self.name)
        rows = require_columns(self.rows(self.config, split), self.columns, self.name)
        return collect(rows, to_problem, self.bad_rows, self.name)
