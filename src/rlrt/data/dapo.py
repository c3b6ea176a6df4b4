"""DAPO-Math-17k (arXiv:2503.14476): the study's training problems.

The hub file repeats each of its 17,398 prompts about 100 times and wraps every problem in a header
and a trailer that ask for "Answer: ..."; the study's own prompt replaces both.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rlrt.batch import Problem, ProblemSet
from rlrt.data.problems import LeftOut, collect
from rlrt.data.rows import BadRow, Row, row_id, text_at, value_at
from rlrt.data.sources import HubOrFile
from rlrt.validation import validated

SOURCE = "DAPO-Math-17k"
# The Chinese trailer stands in 20 problems, inside the English wrapper.
_WRAPPER = re.compile(
    r"\A\s*Solve the following math problem step by step\. The last line of your response should "
    r"be of the form Answer: [^\n]* is the answer to the problem\.\s*"
    r'|\s*Remember to put your answer on its own line after "Answer:"\.?\s*\Z'
)
_CHINESE_TRAILER = re.compile(r"\s*让我们一步一步地思考。请以“Answer: [^\n]*\Z")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_log = logging.getLogger(__name__)


@validated("data")
@dataclass(frozen=True)
class DapoProblems(HubOrFile):
    """DAPO-Math-17k from the hub, or from a local file in the hub's or in plain columns.

    Plain columns: problem, answer, id, and where known lang, overlap (with an evaluation set) and
    flag (a doubtful row). Each question stays once (``gather``). A row is dropped for the first
    reason in this order: broken, other language, flagged, overlap that the copy marks, conflicting
    answers, duplicate, overlap that is found.
    """

    name: str = field(default="BytedTsinghua-SIA/DAPO-Math-17k", kw_only=True)
    language: str | None = None  # null: both
    leave_out_overlaps: bool = True  # that the copy marks
    leave_out_flagged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.language not in ("en", "zh", None):
            raise ValueError(f"data.language is {self.language!r}; allowed: en, zh, null")

    def read_train(self) -> ProblemSet:
        def to_problem(row: Row) -> Problem | LeftOut:
            problem = dapo_problem(row)
            reason = self._reason_to_leave_out(row, problem)
            return problem if reason is None else LeftOut(reason)

        place = self.name if self.path is None else self.path
        rows = self._warn_of_overlaps(self.rows(None, "train"))
        return collect(rows, to_problem, self.bad_rows, place, unique=True)

    def _warn_of_overlaps(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows; a warning beforehand where overlaps are to be left out and none is marked."""
        expects_marks = self.leave_out_overlaps and not self.overlap_with
        for number, row in enumerate(rows):
            # Copies that mark overlaps mark the language of every row too; the hub's marks neither.
            if number == 0 and expects_marks and "lang" not in row.columns:
                _log.warning(
                    "overlaps are left out only where data.overlap_with names evaluation problems"
                )
            yield row

    def _reason_to_leave_out(self, row: Row, problem: Problem) -> str | None:
        language = value_at(row.columns, "lang") or language_of(problem.question)
        if self.language is not None and language != self.language:
            return "other language"
        if self.leave_out_flagged and value_at(row.columns, "flag"):
            return "flagged"
        if self.leave_out_overlaps and value_at(row.columns, "overlap"):
            return "overlap"
        return None


def dapo_problem(row: Row) -> Problem:
    """A row of the hub file (``prompt``, ``reward_model``) or of a plain one as a problem.

    BadRow where there is no question, no answer, or nothing but the wrapper.
    """
    if "prompt" in row.columns:
        listed = isinstance(row.columns["prompt"], list)
        question, answer, id_ = "prompt", "reward_model.ground_truth", "extra_info.index"
        question = "prompt.-1.content" if listed else question
    else:
        question, answer, id_ = "problem", "answer", "id"
    text = without_wrapper(text_at(row, question, "question"))
    if not text:
        raise BadRow("no question", "only the wrapper")
    return Problem(row_id(row, id_), text, text_at(row, answer, "answer"), SOURCE)


def without_wrapper(prompt: str) -> str:
    """The problem alone, without header, trailer and outer white space."""
    return _CHINESE_TRAILER.sub("", _WRAPPER.sub("", prompt)).strip()


def language_of(question: str) -> str:
    """Chinese ("zh") where one of its characters occurs, else "en": so are all rows labeled."""
    return "zh" if _CHINESE.search(question) else "en"
