"""From the columns of a row to the text of a problem."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rlrt.batch import Problem
from rlrt.data.rows import BadRow, Row

_UNFIT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a problem.

    A dot steps into a nested column (``reward_model.ground_truth``), a number into a list
    (``prompt.0.content``); a column whose own name has dots is found first.
    """

    question: str = "problem"
    answer: str = "answer"
    id: str | None = "id"
    solution: str | None = None
    feedback: str | None = None

    def problem(self, row: Row, source: str) -> Problem:
        """The row as a problem (its id: ``row_id``).

        BadRow where question or answer are missing, or one of the fields is no text.
        """
        return Problem(
            id=row_id(row, self.id),
            question=text_at(row, self.question, "question"),
            answer=text_at(row, self.answer, "answer"),
            source=source,
            solution=_optional_text(row, self.solution, "solution"),
            feedback=_optional_text(row, self.feedback, "feedback"),
        )


def value_at(columns: Mapping[str, Any], name: str) -> Any:
    """The value of a column by its name or dotted path; None where there is none."""
    if name in columns:
        return columns[name]
    value: Any = columns
    for step in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch(r"-?[0-9]+", step):
            value = next(iter(value[int(step) :]), None)
        else:
            return None
    return value


def text_at(row: Row, name: str, what: str) -> str:
    """The text in a column. BadRow ("no question", "answer not text", …) says what is wrong."""
    value = value_at(row.columns, name)
    if value is None:
        has = ", ".join(map(str, row.columns))
        raise BadRow(f"no {what}", f"nothing in column {name!r}; the row has: {has}")
    return plain_text(value, what)


def _optional_text(row: Row, name: str | None, what: str) -> str | None:
    value = None if name is None else value_at(row.columns, name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return plain_text(value, what)


def row_id(row: Row, name: str | None) -> str:
    """The row's own id where it has one, else the end of its place ("train.jsonl:12")."""
    own = None if name is None else value_at(row.columns, name)
    return row.place.rsplit("/", 1)[-1] if own in (None, "") else plain_text(own, "id")


def plain_text(value: Any, what: str) -> str:
    """The value as stripped text: 42 and 42.0 give "42", a list of one gives its item.

    BadRow for booleans, other lists, objects, infinities, and text that cannot travel on: null
    bytes end strings in C libraries, and lone surrogates cannot be written as UTF-8.
    """
    if isinstance(value, list) and len(value) == 1:
        return plain_text(value[0], what)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _number(value, what)
    if not isinstance(value, str):
        raise BadRow(f"{what} not text", f"found {type(value).__name__}")
    text = value.strip()
    if not text:
        raise BadRow(f"no {what}", "empty text")
    if _UNFIT.search(text):
        raise BadRow(f"{what} not text", "a null byte or half a surrogate pair in it")
    return text


def _number(value: int | float | Decimal, what: str) -> str:
    if not math.isfinite(value):
        raise BadRow(f"{what} not text", f"found {value}")
    if value == int(value):
        return str(int(value))
    return f"{Decimal(str(value)):f}"  # never 1e-07, which no verifier is bound to read
