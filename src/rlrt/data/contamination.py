r"""Which training problems are evaluation problems too.

Texts are compared word by word. A word is a number, a run of letters, a sign or one letter of a
script without spaces; LaTeX that only sets type is none, and ``\dfrac`` is ``\frac``. Two texts are
alike by the weight of the words that they share in order (their longest common subsequence),

    similarity = 2 Σ_shared w / (Σ_train w + Σ_evaluated w),   w = ln(1 + N / df)^1.5,

with df of N texts holding the word: ELEVEN for ELLIPSE costs more than "Find" for "What is".
Before, two things are set apart that copies of a problem change: how the answer is to be given
("Express your answer as m/n, and find m + n"), and drawings (``[asy]``), which are compared with
each other where both texts have one. A training text that holds a whole evaluation question, inside an
instruction of any length, is alike by 1.
"""

import math
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from rapidfuzz.distance import LCSseq

from rlrt.batch import Problem
from rlrt.data.problems import question_key
from rlrt.validation import validated

Kind = Literal["exact", "near", "variant"]
Similarity = Annotated[float, Field(gt=0, le=1, description="allowed: over 0, at most 1")]
DEFAULT_SIMILARITY = 0.82  # docs/contamination.md says what lies on either side of it
_RUN = 3  # words in a row that two texts must share before they are compared at all ...
_SHARED_RUNS = 0.2  # ... and the least share of such runs of the text that has fewer
_LEAST_CORE = 1 / 3  # of a text's words
_LEAST_HELD = 6  # words of a question that is looked for inside another text; fewer stand anywhere

_DRAWING = re.compile(r"\[asy\](.*?)(?:\[/asy\]|\Z)", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|q?quad|text(?:bf|it|rm)?|mathrm|mathbf"
    r"|mbox|operatorname|begin|end)(?![a-z])"
)
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-zα-ω]+|[^\W\d_]|[-+*/=<>]")
_HOW_TO_ANSWER = re.compile(
    r"(?:express|provide|give|write|state) (?:your|the) (?:final )?answer\b"
    r"|the (?:(?:original|final) )?answer (?:is|can|may|should)\b|the original answer\b"
    r"|(?:can|may|could) be (?:written|expressed|simplified|represented) (?:as|in)\b"
    r"|please (?:provide|give|find|calculate|compute|express)\b"
    r"|(?:fill in|provide|find) the number of such\b|fill in the blank\b",
    re.IGNORECASE,
)
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SAME_WORD = {
    **{word: str(number) for number, word in enumerate(_NUMERALS, 2)},
    **dict.fromkeys(("dfrac", "tfrac", "rac"), "frac"),  # "rac": \f read as a form feed
    **dict.fromkeys(("cdots", "ldots", "dotsc", "dotsm", "dotsb"), "dots"),
    **dict.fromkeys(("cdot", "times"), "*"),
    **dict.fromkeys(("leq", "leqslant"), "le"),
    **dict.fromkeys(("geq", "geqslant"), "ge"),
}


@dataclass(frozen=True)
class Overlap:
    """A training problem that an evaluation problem resembles.

    ``kind``: "exact", the same words; "near", alike by ``similarity`` and the numbers of one among
    those of the other; "variant", alike, with other numbers: the same template, another problem.
    """

    train_id: str
    benchmark: str  # the evaluation problem's ``source``
    benchmark_id: str
    kind: Kind
    similarity: float  # 0 to 1; exact is 1


@dataclass(frozen=True)
class _Text:
    words: tuple[str, ...]  # all of them but the drawing's
    core: tuple[str, ...]  # the words before the instruction how to answer
    drawing: tuple[str, ...]


@validated("")
def overlaps(
    train: Sequence[Problem],
    evaluated: Sequence[Problem],
    similarity: Similarity = DEFAULT_SIMILARITY,
) -> list[Overlap]:
    """Every pair that is alike, in the order of ``train``, for each problem the most alike first.

    Equal questions of ``train`` are compared once. ``similarity``: the least that counts, over 0 to
    1. Words weigh by how many of the given texts hold them, so a pair's similarity depends a little
    on the sets that it comes from.
    """
    texts = {question_key(p.question): p.question for p in train}
    ours = {key: _read(question) for key, question in texts.items()}
    theirs = [(problem, _read(problem.question)) for problem in evaluated]
    weight = _weights([*ours.values(), *(text for _, text in theirs)])
    candidates = _index([text for _, text in theirs])
    alike: dict[str, list[tuple[Kind, float, Problem]]] = {}
    for key, text in ours.items():
        pairs = [(*_compare(text, theirs[n][1], weight), theirs[n][0]) for n in candidates(text)]
        kept = [pair for pair in pairs if pair[0] == "exact" or pair[1] >= similarity]
        alike[key] = sorted(kept, key=lambda pair: (pair[0] != "exact", -pair[1]))
    return [
        Overlap(problem.id, other.source, other.id, kind, value)
        for problem in train
        for kind, value, other in alike[question_key(problem.question)]
    ]


def _read(question: str) -> _Text:
    drawing = " ".join(_DRAWING.findall(question))
    text = _DRAWING.sub(" ", question)
    words = _words(text)
    core = words
    if instruction := _HOW_TO_ANSWER.search(text):
        before = _words(text[: instruction.start()])
        # at the beginning of the text it is part of the problem: "N can be written as a sum of ... Find ..."
        core = before if len(before) >= _LEAST_CORE * len(words) else words
    return _Text(words, core, _words(drawing))


def _words(text: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKC", text)
    plain = _LAYOUT.sub(" ", _THOUSANDS.sub("", plain)).casefold()
    return tuple(sys.intern(_SAME_WORD.get(word, word)) for word in _WORD.findall(plain))


def _weights(texts: Sequence[_Text]) -> Callable[[str], float]:
    held_by = Counter(word for text in texts for word in set(text.core))
    return {
        word: math.log1p(len(texts) / count) ** 1.5 for word, count in held_by.items()
    }.__getitem__


def _runs(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[n : n + _RUN] for n in range(max(1, len(words) - _RUN + 1))} if words else set()


def _index(texts: Sequence[_Text]) -> Callable[[_Text], list[int]]:
    """Which of ``texts`` share enough runs of words with a text to be compared with it."""
    runs = [_runs(text.core) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, own_runs in enumerate(runs):
        for run in own_runs:
            holders[run].append(number)

    def candidates(text: _Text) -> list[int]:
        own = _runs(text.words)  # an instruction before the question may end what counts as core
        shared = Counter(number for run in own for number in holders.get(run, ()))
        return sorted(
            number
            for number, count in shared.items()
            if count >= _SHARED_RUNS * min(len(own), len(runs[number]))
        )

    return candidates


def _compare(one: _Text, other: _Text, weight: Callable[[str], float]) -> tuple[Kind, float]:
    if one.words == other.words and one.drawing == other.drawing:
        return "exact", 1.0
    drawn = 1.0
    if one.drawing and other.drawing:
        drawn = LCSseq.normalized_similarity(one.drawing, other.drawing)
    if _holds(one.words, other.words):
        return "near", drawn
    shared = _shared(one.core, other.core)
    alike = 2 * sum(map(weight, shared)) / sum(map(weight, (*one.core, *other.core)))
    similarity = min(alike, drawn)
    numbers = min(_count_numbers(one.core), _count_numbers(other.core))
    return "near" if _count_numbers(shared) == numbers else "variant", similarity


def _holds(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return len(part) >= _LEAST_HELD and f" {' '.join(part)} " in f" {' '.join(words)} "


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> list[str]:
    """The words of the longest common subsequence."""
    blocks = LCSseq.editops(one, other).as_matching_blocks()
    return [word for block in blocks for word in one[block.a : block.a + block.size]]


def _count_numbers(words: Iterable[str]) -> int:
    return sum(word[0].isdigit() for word in words)
