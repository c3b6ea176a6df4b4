"""Worked solutions of sums in several styles, with deliberate slips where asked for."""

from collections.abc import Callable, Sequence
from random import Random

# How far a slip misses, as often as it stands here: mostly by one, at times a forgotten carry.
_MISSES = (-1, -1, 1, 1, -2, 2, -10, 10)


class _Sheet:
    """Paper on which a solution is written line by line."""

    def __init__(self, slip_rate: float, repair_rate: float, rng: Random) -> None:
        self.lines: list[str] = []
        self._slip_rate, self._repair_rate, self._rng = slip_rate, repair_rate, rng

    def step(self, expression: str, result: int) -> int:
        """Writes one step; returns the value that it ends in, which a slip makes wrong."""
        if self._rng.random() < self._slip_rate:
            wrong = result + self._rng.choice([miss for miss in _MISSES if result + miss >= 0])
            self.lines.append(f"{expression}{wrong}")
            if self._rng.random() >= self._repair_rate:
                return wrong
            self.lines.append("Wait, let me reconsider.")
        self.lines.append(f"{expression}{result}")
        return result


def _in_order(terms: Sequence[int], sheet: _Sheet) -> int:
    total = terms[0]
    for term in terms[1:]:
        total = sheet.step(f"{total}+{term}=", total + term)
    return total


def _backwards(terms: Sequence[int], sheet: _Sheet) -> int:
    return _in_order(terms[::-1], sheet)


def _last_pair_apart(terms: Sequence[int], sheet: _Sheet) -> int:
    if len(terms) < 3:
        return _in_order(terms, sheet)
    front = _in_order(terms[:-2], sheet)
    back = _in_order(terms[-2:], sheet)
    return _in_order((front, back), sheet)


def _through_tens(terms: Sequence[int], sheet: _Sheet) -> int:
    total = terms[0]
    for term in terms[1:]:
        tens, ones = term - term % 10, term % 10
        parts = f"{tens}+{ones}" if tens and ones else f"{term}"
        total = sheet.step(f"{total}+{parts}=", total + term)
    return total


def _in_words(terms: Sequence[int], sheet: _Sheet) -> int:
    total = terms[0]
    sheet.lines.append(f"Start at {total}")
    for term in terms[1:]:
        total = sheet.step(f"Add {term}: ", total + term)
    return total


STYLES: dict[str, Callable[[Sequence[int], _Sheet], int]] = {
    "in_order": _in_order,
    "backwards": _backwards,
    "last_pair_apart": _last_pair_apart,
    "through_tens": _through_tens,
    "in_words": _in_words,
}


def write_solution(
    terms: Sequence[int],
    style: str,
    slip_rate: float = 0.0,
    repair_rate: float = 0.0,
    rng: Random | None = None,
) -> str:
    r"""A solution of the sum of ``terms``, one step to a line, that ends in ``\boxed{…}``.

    Each step goes wrong with probability ``slip_rate``; the wrong value is carried onward, or with
    probability ``repair_rate`` it is noticed and the step written again. ``rng`` is needed only
    where there are slips. Raises KeyError for a style that is not in ``STYLES``.
    """
    sheet = _Sheet(slip_rate, repair_rate, rng or Random(0))
    total = STYLES[style](terms, sheet)
    return "\n".join((*sheet.lines, rf"\boxed{{{total}}}"))
