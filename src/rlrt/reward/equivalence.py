"""Whether an answer and the gold answer mean the same. Imports no torch: it runs in light workers.

Preparing the texts is linear in their length; comparing them may take for ever, see ``is_equivalent``.
"""

import re
from functools import lru_cache
from typing import Any

_OUTER = (("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), ("$", "$"))
_DELIMITER = re.compile(r"(?<!\\)\$|\\[(\[]|\\(?:boxed|fbox)(?![a-zA-Z])")
_SIGN = r"(?: ?\\?%| ?\\text ?\{ ?(?:percent|\\?%) ?\}| ?\b(?:percentage|percent|pct)\b)"
_PERCENT = re.compile(_SIGN, re.IGNORECASE)
_LAST_PERCENT = re.compile(_SIGN + "$", re.IGNORECASE)
_GROUPED_NUMBER = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
# k_{\mathrm{B}} and I_{\max} are the symbols k_B and I_max; in a box math-verify parses neither.
_SUBSCRIPT_FONT = re.compile(r"_ ?\{ ?\\(?:mathrm|mathit|mathbf|text|textit) ?\{ ?(\w+) ?\} ?\}")
_SUBSCRIPT_NAME = re.compile(r"_ ?\{ ?\\(max|min) ?\}")
_NOT_A_WORD = re.compile(
    r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end) ?\{[^{}]*\}|\\[a-zA-Z]+"
)
_WORD = re.compile(r"[a-zA-Z]{2,}|\b[a-zA-Z]: ")  # "A: 26" labels its answer


def is_exact_match(answer: str, gold: str) -> bool:
    """Whether both are the same text once ``bare``, and not empty."""
    return bare(answer) == bare(gold) != ""


def is_equivalent(answer: str, gold: str, free_text: bool = False) -> bool:
    r"""Whether ``answer`` equals ``gold``: as text, else mathematically by math-verify 0.9.

    Bare strings mislead math-verify both ways (``2`` counts as ``2\sqrt{2}``; ``\text{34}``, tuples
    and ``{-2}`` do not parse), so a side without math delimiters is put into ``\boxed{…}`` and
    parsed as LaTeX as a whole: no number is fished out of a formula that does not parse.
    ``free_text``: the answer may be prose, in which math-verify searches for the answer itself.

    Without limits of its own: call it where a hang can be killed. Raises MemoryError and
    RecursionError where math-verify lets them through; whatever it cannot parse is not equal.
    """
    if is_exact_match(answer, gold):
        return True
    from math_verify import verify  # half a second to import, so only where it is needed

    gold_side, answer_side = as_math(gold), as_math(answer, may_be_prose=free_text)
    return bool(verify(_parse(gold_side), _parse(answer_side), timeout_seconds=None))


@lru_cache(maxsize=64)  # the gold answer comes back with every rollout of its group
def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    boxed = text.startswith(r"\boxed{")
    targets = [LatexExtractionConfig(), *([] if boxed else [ExprExtractionConfig()])]
    parsed: list[Any] = parse(text, targets, parsing_timeout=None)
    return parsed


def bare(text: str) -> str:
    r"""``text`` without outer math delimiters, percent signs, and spaces between thousands.

    A percent sign is a unit like a degree or a dollar: ``28\%`` and ``28 percent`` are 28, not 0.28.
    A stray backslash at the end goes too; any white space becomes one space.
    """
    text = _without_percent(" ".join(text.split()))
    for opening, closing in _OUTER:
        inner = text[len(opening) : len(text) - len(closing)].strip()
        enclosed = text.startswith(opening) and text.endswith(closing)
        if enclosed and inner and not _DELIMITER.search(inner):
            text = _without_percent(inner)
            break
    text = text.removesuffix("\\").rstrip()
    return text.replace(" ", "") if _GROUPED_NUMBER.fullmatch(text) else text


def _without_percent(text: str) -> str:
    pattern = _LAST_PERCENT if _DELIMITER.search(text) else _PERCENT
    return pattern.sub("", text).strip() or text


def as_math(text: str, may_be_prose: bool = False) -> str:
    r"""What math-verify is given: the text itself where it marks its mathematics, else ``\boxed{…}``.

    With ``may_be_prose``, an unmarked text with a word in it is left for math-verify to search.
    """
    text = _SUBSCRIPT_NAME.sub(r"_{\1}", _SUBSCRIPT_FONT.sub(r"_{\1}", bare(text)))
    if _DELIMITER.search(text):
        return text
    if may_be_prose and is_prose(text):
        return f" {text.rstrip('.')} "  # math-verify knows an answer in [ ] by the spaces around it
    return rf"\boxed{{{text}}}"


def is_prose(text: str) -> bool:
    """Whether words stand beside something else: ``just 42`` is prose, ``x + 1`` and ``odd`` not."""
    plain = _NOT_A_WORD.sub(" ", text)
    return len(plain.split(maxsplit=1)) > 1 and _WORD.search(plain) is not None
