"""Problems from any table with named columns: a local file or a hub data set."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlrt.batch import Problem, ProblemSet
from rlrt.data.columns import Columns
from rlrt.data.held_out import check_held_out_problems, split
from rlrt.data.questions import LeftOut, convert, gather
from rlrt.data.rows import Row, check_file, read_file, read_hub


@dataclass(frozen=True)
class JsonlProblems:
    """Problems of a local file (JSON Lines, also gzipped, or parquet).

    Column names may be dotted paths (``rlrt.data.columns``). ``held_out_problems``: see
    ``rlrt.data.held_out.split``. ``bad_rows``: "skip" counts broken rows, "refuse" stops at the
    first. Files are checked for existence here and read when first asked for problems.
    """

    path: str
    held_out_path: str | None = None
    question_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = "id"
    solution_column: str | None = None
    source: str | None = None  # null: the name of the file
    held_out_problems: int | None = None
    bad_rows: str = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        check_bad_rows(self.bad_rows)
        check_held_out_problems(self.held_out_problems)
        check_file(self.path, "data.path")
        if self.held_out_path is not None:
            check_file(self.held_out_path, "data.held_out_path")

    def train(self) -> ProblemSet:
        """The problems to train on."""
        return self._parts[0]

    def held_out(self) -> ProblemSet:
        """The problems to evaluate on; none of their questions is trained on."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[ProblemSet, ProblemSet]:
        held_out = None if self.held_out_path is None else self._read(self.held_out_path)
        return split(self._read(self.path), held_out, self.held_out_problems, self.seed)

    def _read(self, path: str) -> ProblemSet:
        columns = Columns(
            self.question_column, self.answer_column, self.id_column, self.solution_column
        )
        return load_problems(path, columns, self.source, self.bad_rows)


@dataclass(frozen=True)
class HubProblems:
    """Problems of a hub data set; settings as in ``JsonlProblems``."""

    name: str
    config: str | None = None
    split: str = "train"
    held_out_split: str | None = None
    question_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = "id"
    solution_column: str | None = None
    source: str | None = None  # null: the name of the data set
    held_out_problems: int | None = None
    bad_rows: str = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        check_bad_rows(self.bad_rows)
        check_held_out_problems(self.held_out_problems)
        if not self.name:
            raise ValueError("data.name is empty; it names a data set such as 'openai/gsm8k'")

    def train(self) -> ProblemSet:
        """The problems to train on."""
        return self._parts[0]

    def held_out(self) -> ProblemSet:
        """The problems to evaluate on; none of their questions is trained on."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[ProblemSet, ProblemSet]:
        held_out = None if self.held_out_split is None else self._read(self.held_out_split)
        return split(self._read(self.split), held_out, self.held_out_problems, self.seed)

    def _read(self, part: str) -> ProblemSet:
        columns = Columns(
            self.question_column, self.answer_column, self.id_column, self.solution_column
        )
        source = self.source or self.name
        rows = read_hub(self.name, self.config, part)
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


def collect(
    rows: Iterable[Row],
    to_problem: Callable[[Row], Problem | LeftOut],
    bad_rows: str,
    what: str,
    unique: bool = False,
) -> ProblemSet:
    """The rows as problems; arguments and errors as in ``convert`` and ``gather``."""
    return gather(convert(rows, to_problem, bad_rows), what, unique)


def check_bad_rows(bad_rows: str) -> None:
    """ValueError unless "skip" or "refuse"."""
    if bad_rows not in ("skip", "refuse"):
        raise ValueError(f"data.bad_rows is {bad_rows!r}; allowed: skip, refuse")
