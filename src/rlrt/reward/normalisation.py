"""How an answer's text is prepared before it is compared. Pure functions, linear in its length."""

import re

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


def bare(text: str) -> str:
    r"""``text`` without outer math delimiters, percent signs, and spaces between thousands.

    A percent sign is a unit like a degree or a dollar: ``28\%`` and ``28 percent`` are 28, not 0.28.
    A stray backslash at the end goes too; any white space becomes one space.
    """
    text = _without_percent(" ".join(text.split()))
    for opening, closing in _OUTER:
        inner = text[len(opening) : len(text) - len(closing)].strip()
        whole = text.startswith(opening) and text.endswith(closing)
        if whole and inner and not _DELIMITER.search(inner):
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
