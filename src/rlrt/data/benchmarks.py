"""Evaluation problems by the name of their benchmark: all of them, or an error."""

from dataclasses import dataclass
from functools import partial
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
            place = f"{self.hub}/{self.split}"
            columns = Columns(self.question_column, "answer", self.id_column)
            rows = read_hub(self.hub, None, self.split, ADVICE, self.revision)
            problems = collect(rows, partial(columns.problem, source=self.name), "refuse", place)
        else:
            place = str(Path(folder).expanduser() / self.file)
            problems = _read(Path(folder) / self.file, f"the file of {self.name}", self.name)
        if len(problems.problems) != self.problems:
            raise ValueError(
                f"{place} holds {len(problems.problems)} problems, but {self.name} has {self.problems}"
            )
        return problems


def read_problem_file(path: str | Path, setting: str) -> ProblemSet:
    """All problems of a local file with columns problem or question, answer, and id if it has one.

    Their ``source`` is the file's name without its ending. ValueError, with its place, for a row
    without a question or an answer; ``setting`` names a file that cannot be read.
    """
    return _read(path, setting, Path(path).name.split(".")[0])


def _read(path: str | Path, setting: str, source: str) -> ProblemSet:
    def to_problem(row: Row) -> Problem:
        question = "question" if "question" in row.columns else "problem"
        return Columns(question).problem(row, source)

    file = check_file(path, setting)
    return collect(read_file(file), to_problem, "refuse", str(file))
