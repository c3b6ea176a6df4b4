"""GSM8K (arXiv:2110.14168): grade-school problems with worked solutions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlrt.batch import Problem, ProblemSet
from rlrt.data.problems import collect
from rlrt.data.rows import BadRow, Row, check_file, read_file, row_id, text_at
from rlrt.data.sources import HubOrFile
from rlrt.validation import validated

SOURCE = "GSM8K"
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")


@validated("data")
@dataclass(frozen=True)
class Gsm8kProblems(HubOrFile):
    """GSM8K from the hub (train, and test as held out) or from local files.

    Local files hold ``question`` or ``problem``, and ``answer`` as in the hub ("... #### 72") or
    as the bare number, which leaves them without worked solutions. ``held_out_problems`` and a
    missing ``held_out_path``: see ``rlrt.data.problems.split_held_out``.
    """

    held_out_path: str | None = None  # with a path, null: a share of it
    name: str = field(default="openai/gsm8k", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_path is not None:
            if self.path is None:
                raise ValueError("data.held_out_path is set, so data.path must be set too")
            check_file(self.held_out_path, "data.held_out_path")

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"solution"})

    def read_train(self) -> ProblemSet:
        return self._collect(self.rows("main", "train"), self.path or f"{self.name}/train")

    def read_held_out(self) -> ProblemSet | None:
        if self.path is None:
            return self._collect(self.rows("main", "test"), f"{self.name}/test")
        if self.held_out_path is None:
            return None
        file = check_file(self.held_out_path, "data.held_out_path")
        return self._collect(read_file(file), self.held_out_path)

    def _collect(self, rows: Iterable[Row], place: str) -> ProblemSet:
        return collect(rows, gsm8k_problem, self.bad_rows, place)


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
