"""Problems from any table with named columns: a local file or a hub data set."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from rlrt.batch import ProblemSet
from rlrt.data.columns import Columns
from rlrt.data.rows import check_file, read_file
from rlrt.data.source import HubSource, Source, check_bad_rows, collect, optional_fields
from rlrt.hub import is_local


@dataclass(frozen=True, kw_only=True)
class NamedColumns(Source):
    """A table whose columns have names; a name may be a dotted path (``rlrt.data.columns``)."""

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


@dataclass(frozen=True)
class JsonlProblems(NamedColumns):
    """Problems of a local file (JSON Lines, also gzipped, or parquet).

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
        return load_problems(self.path, self.columns, self.source, self.bad_rows)

    def read_held_out(self) -> ProblemSet | None:
        if self.held_out_path is None:
            return None
        return load_problems(self.held_out_path, self.columns, self.source, self.bad_rows)


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

    @property
    def repository(self) -> str:
        return self.name

    @property
    def local(self) -> str:
        return "data.name" if is_local(self.name) else ""

    def read_rows(self) -> ProblemSet:
        return self._read(self.split)

    def read_held_out(self) -> ProblemSet | None:
        return None if self.held_out_split is None else self._read(self.held_out_split)

    def _read(self, part: str) -> ProblemSet:
        columns, source = self.columns, self.source or self.name
        rows = self.rows(self.config, part)
        return collect(rows, lambda row: columns.problem(row, source), self.bad_rows, self.name)


def load_problems(
    path: str | Path,
    columns: Columns | None = None,
    source: str | None = None,
    bad_rows: str = "skip",
) -> ProblemSet:
    """All problems of one local file, a benchmark for example; ``columns`` as in ``Columns()``."""
    check_bad_rows(bad_rows)
    file = check_file(path, "path")
    named = Columns() if columns is None else columns
    called = file.name.split(".")[0] if source is None else source
    return collect(read_file(file), lambda row: named.problem(row, called), bad_rows, str(file))
