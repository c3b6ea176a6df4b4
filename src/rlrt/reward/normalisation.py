"""How an answer's text is prepared before it is compared. Pure functions, linear in its length."""

import re

_OUTER = (("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), ("$", "$"))
_DELIMITER = re.compile(r"(?<!\\)\$|\\[(\[]|\\(?:boxed|fbox)\b")
_NOT_A_WORD = re.compile(
    r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[a-zA-Z]+"
)
_WORD = re.compile(r"[a-zA-Z]{2,}")


def bare(text: str) -> str:
    """``text`` without surrounding white space, stray trailing backslash and outer delimiters."""
    text = text.strip()
    for opening, closing in _OUTER:
        inner = text[len(opening) : len(text) - len(closing)]
        whole = text.startswith(opening) and text.endswith(closing)
        if whole and inner.strip() and not _DELIMITER.search(inner):
            return inner.strip()
    return text.removesuffix("\\").rstrip()


def as_math(text: str, may_be_prose: bool = False) -> str:
    r"""What math-verify is given: the text itself where it marks its mathematics, else ``\boxed{…}``.

    With ``may_be_prose``, an unmarked text with a word in it is left for math-verify to search.
    """
    text = bare(text)
    if _DELIMITER.search(text) or (may_be_prose and is_prose(text)):
        return text
    return rf"\boxed{{{text}}}"


def is_prose(text: str) -> bool:
    """Whether words stand beside something else: ``just 42`` is prose, ``x + 1`` and ``odd`` not."""
    plain = _NOT_A_WORD.sub(" ", text)
    return len(plain.split(maxsplit=1)) > 1 and _WORD.search(plain) is not None
