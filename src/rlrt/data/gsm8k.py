"""GSM8K (arXiv:2110.14168): grade-school problems with worked solutions."""

import re
from dataclasses import dataclass
from functools import cached_property

from rlrt.batch import Problem, ProblemSet
from rlrt.data.columns import row_id, text_at
from rlrt.data.held_out import check_held_out_problems, split
from rlrt.data.rows import BadRow, Row, check_file, read_file, read_hub
from rlrt.data.tables import check_bad_rows, collect

SOURCE = "GSM8K"
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Gsm8kProblems:
    """GSM8K from the hub (train, and test as held out) or from local files.

    Local files hold ``question`` or ``problem``, and ``answer`` as in the hub ("... #### 72") or
    as the bare number. ``held_out_problems`` and a missing ``held_out_path``: see
    ``rlrt.data.held_out.split``.
    """

    path: str | None = None  # null: from the hub
    held_out_path: str | None = None  # with a path, null: a share of it
    name: str = "openai/gsm8k"
    held_out_problems: int | None = None
    bad_rows: str = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        check_bad_rows(self.bad_rows)
        check_held_out_problems(self.held_out_problems)
        if self.path is not None:
            check_file(self.path, "data.path")
        if self.held_out_path is not None:
            if self.path is None:
                raise ValueError("data.held_out_path is set, so data.path must be set too")
            check_file(self.held_out_path, "data.held_out_path")

    def train(self) -> ProblemSet:
        """The problems to train on, with worked solutions where the data has them."""
        return self._parts[0]

    def held_out(self) -> ProblemSet:
        """The test set, or the share held out of a single local file."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[ProblemSet, ProblemSet]:
        if self.path is None:
            train, held_out = self._from_hub("train"), self._from_hub("test")
            return split(train, held_out, self.held_out_problems, self.seed)
        held_file = self.held_out_path
        tested = None if held_file is None else self._from_file(held_file)
        return split(self._from_file(self.path), tested, self.held_out_problems, self.seed)

    def _from_hub(self, part: str) -> ProblemSet:
        rows = read_hub(self.name, "main", part)
        return collect(rows, gsm8k_problem, self.bad_rows, f"{self.name}/{part}")

    def _from_file(self, path: str) -> ProblemSet:
        rows = read_file(check_file(path, "data.path"))
        return collect(rows, gsm8k_problem, self.bad_rows, path)


def gsm8k_problem(row: Row) -> Problem:
    """A row as a problem; BadRow ("no answer") unless the answer ends in, or is, one number."""
    question = "question" if "question" in row.columns else "problem"
    solution, answer = split_answer(text_at(row, "answer", "answer"))
    return Problem(row_id(row, "id"), text_at(row, question, "question"), answer, SOURCE, solution)


def split_answer(text: str) -> tuple[str | None, str]:
    """Worked solution (None where there is none) and final number.

    "She has 2*500 = <<2*500=1000>>1000. #### 1,000" gives the text up to #### without the <<...>>
    calculator marks, and "1000".
    """
    worked, _, last = text.rpartition("####")
    answer = _THOUSANDS.sub("", last.strip())
    if not _NUMBER.fullmatch(answer):
        raise BadRow("no answer", "no number after ####, or alone")
    return _CALCULATOR.sub("", worked).strip() or None, answer
