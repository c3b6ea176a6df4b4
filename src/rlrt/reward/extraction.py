"""Where in a response its final answer stands. Pure functions, linear in the length of the text."""

import re
from dataclasses import dataclass
from typing import Literal

Extract = Literal["boxed", "answer_line", "boxed_or_text"]

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character, not a brace
_BARE_TOKEN = re.compile(r"[^\s$\\{}]+")
_ANSWER_MARK = re.compile(r"\banswer\s*:", re.IGNORECASE)
_HASH_MARK = re.compile(r"####\s*:?")
# What may stand between boxes that make up one answer: delimiters, spacing, a comma, "and" or "or".
_GAP_NOISE = re.compile(r"\\text\b|\\quad|\\qquad|\\[()\[\] ,;]|[${}\s]")
_GAP_SEPARATORS = frozenset({",", ";", "and", "or", ",and", ",or"})
_GAP_CHARACTERS = 70  # a longer stretch of text is a new thought


@dataclass(frozen=True)
class Extracted:
    """An answer found in a response. ``free_text``: no answer was marked, so it is all the text."""

    text: str
    free_text: bool = False


def _boxed_at(text: str, start: int, stop: int) -> tuple[str, int] | None:
    """Content and end of the box command at ``start``; None if it does not close before ``stop``."""
    command = _BOX.match(text, start, stop)
    assert command is not None, text[start : start + 20]
    begin = command.end()
    if begin >= stop or text[begin] != "{":
        token = _BARE_TOKEN.match(text, begin, stop)
        return (token.group().rstrip(".,;:"), token.end()) if token else None
    depth = 0
    for brace in _BRACE.finditer(text, begin, stop):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[begin + 1 : brace.start()].strip(), brace.end()
    return None


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{…} or \fbox{…} (also \boxed 5); None without one, or unclosed.

    An unclosed last box does not fall back on an earlier one: the final answer was not given.
    Of nested boxes the innermost counts, being the one that starts last.
    """
    starts = [match.start() for match in _BOX.finditer(text)]
    box = _boxed_at(text, starts[-1], len(text)) if starts else None
    return box[0] if box else None


def joined_boxes(text: str) -> str | None:
    r"""The last box and those joined to it by a comma, "and" or "or", as one comma list, or None.

    ``\boxed{1} and \boxed{2}`` gives ``1,2``; ``\boxed{1} then \boxed{2}`` gives ``2``. A repeated
    box counts once.
    """
    contents: list[str] = []
    stop = len(text)
    gap_end: int | None = None
    for start in reversed([match.start() for match in _BOX.finditer(text)]):
        box = _boxed_at(text, start, stop)
        if box is None or (gap_end is not None and not _is_separator(text[box[1] : gap_end])):
            break
        if box[0] not in contents:
            contents.append(box[0])
        stop = gap_end = start
    return ",".join(reversed(contents)) if contents else None


def _is_separator(gap: str) -> bool:
    if len(gap) > _GAP_CHARACTERS:
        return False
    return _GAP_NOISE.sub("", gap) in _GAP_SEPARATORS


def answer_line(text: str) -> str | None:
    """The rest of the line after the last "Answer:" (DAPO, arXiv 2503.14476), or None if empty.

    A box in that line is opened.
    """
    rest = _after_last(_ANSWER_MARK, text)
    if rest is None:
        return None
    line = rest.split("\n", 1)[0].strip().strip("*").strip()
    return (last_boxed(line) if _BOX.search(line) else line) or None


def _after_last(mark: re.Pattern[str], text: str) -> str | None:
    end = max((match.end() for match in mark.finditer(text)), default=None)
    return None if end is None else text[end:].lstrip()


def extract_answer(text: str, how: Extract, tail_characters: int | None = None) -> Extracted | None:
    r"""The final answer of ``text``, or None where the rule finds none (the response is wrong).

    ``boxed``: the last box. ``answer_line``: the last "Answer:" line. ``boxed_or_text``: the joined
    boxes where the text has a box command; else what follows the last "####"; else all of the text.
    ``tail_characters``: look at this many last characters only (None: at all of them).
    """
    if tail_characters is not None:
        text = text[-tail_characters:]
    if how == "boxed":
        answer = last_boxed(text)
    elif how == "answer_line":
        answer = answer_line(text)
    elif _BOX.search(text):
        answer = joined_boxes(text)
    elif (marked := _after_last(_HASH_MARK, text)) is not None:
        answer = marked.split("\n", 1)[0].strip()
    else:
        return Extracted(text.strip(), free_text=True) if text.strip() else None
    return Extracted(answer) if answer else None
