"""Evaluation problems by the name of their benchmark: all of them, or an error."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlrt.batch import Problem, ProblemSet
from rlrt.data.problems import collect
from rlrt.data.rows import Columns, Row, check_file, read_file, read_hub

# of the paper's Table 1 (arXiv:2605.10781), in its order; the mean over them is its headline
PAPER_BENCHMARKS = ("aime24", "aime25", "aime26", "hmmt26", "amc23", "math500")
ADVICE = (
    "check the network, or name the folder of local copies by benchmark_folder= "
    "(data.overlap_folder= in a training)"
)


@dataclass(frozen=True)
class Benchmark:
    """A published set of problems: its home on the hub, and its name in a local folder."""

    name: str
    file: str
    hub: str
    split: str
    question_column: str
    id_column: str
    problems: int
    revision: str | None = None  # of the hub: a branch, a tag or a commit

    def read(self, folder: str | Path | None = None) -> ProblemSet:
        """All problems, from ``folder`` or else the hub; their ``source`` is the benchmark's name.

        ValueError, with its place, for a row without a question or an answer, and where there are
        not as many as the benchmark has: a score over some of them is no score on the benchmark.
        """
        if folder is None:
            columns = Columns(self.question_column, "answer", self.id_column)
            what = f"{self.hub}/{self.split}"
            rows = read_hub(self.hub, None, self.split, ADVICE, self.revision)
            problems = _read(rows, self.name, what, columns)
        else:
            file = check_file(Path(folder) / self.file, f"the file of {self.name}")
            problems, what = _read(read_file(file), self.name, str(file)), str(file)
        if len(problems.problems) != self.problems:
            raise ValueError(
                f"{what} holds {len(problems.problems)} problems, but {self.name} has {self.problems}"
            )
        return problems


def read_problem_file(path: str | Path, setting: str) -> ProblemSet:
    """All problems of a local file with columns problem or question, answer, and id if it has one.

    Their ``source`` is the file's name without its ending. ValueError, with its place, for a row
    without a question or an answer; ``setting`` names a file that cannot be read.
    """
    file = check_file(path, setting)
    return _read(read_file(file), file.name.split(".")[0], str(file))


def _read(
    rows: Iterable[Row], source: str, what: str, columns: Columns | None = None
) -> ProblemSet:
    def to_problem(row: Row) -> Problem:
        question = "question" if "question" in row.columns else "problem"
        return (columns or Columns(question)).problem(row, source)

    return collect(rows, to_problem, "refuse", what)
