"""Whether an answer and the gold answer mean the same. Imports no torch: it runs in light workers."""

from functools import lru_cache
from typing import Any

from rlrt.reward.normalisation import as_math, bare


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
