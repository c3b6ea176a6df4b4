"""Generated sums of several terms, with worked solutions: a tiny policy learns them within minutes."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random

from rlrt.batch import Problem, ProblemSet

HELD_OUT_SHARE = 8  # one problem in this many belongs to the held-out part
_TRIES_PER_PROBLEM = 200  # random draws for one new problem before the part counts as used up
# How far a slip misses, as often as it stands here: mostly by one, at times a forgotten carry.
_MISSES = (-1, -1, 1, 1, -2, 2, -10, 10)


class Arithmetic:
    """Distinct sums like "Compute 7 + 12 + 5.", every one with a worked solution.

    The order of a part is its order of drawing, so a larger part starts with the smaller one.
    A sum belongs to one part for every seed and size: a hash of its sorted terms decides, so the
    same terms in another order are never split between training and evaluation.

    terms: how many terms a sum may have, each 2 to 8. largest: terms lie in 1..largest, 2 to 9999.
    Raises ValueError for a setting out of range or a part asked to hold more sums than there are.
    """

    def __init__(
        self,
        seed: int,
        train_problems: int,
        held_out_problems: int,
        terms: Sequence[int] = (3, 4),
        largest: int = 20,
    ) -> None:
        counts = {"train_problems": train_problems, "held_out_problems": held_out_problems}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}; allowed: 1 or more")
        if not terms or not all(2 <= count <= 8 for count in terms):
            raise ValueError(f"terms is {list(terms)}; allowed: one or more counts from 2 to 8")
        if not 2 <= largest <= 9999:
            raise ValueError(f"largest is {largest}; allowed: 2 to 9999")
        self._seed, self._terms, self._largest = seed, tuple(terms), largest
        self._train = self._draw("train", train_problems)
        self._held_out = self._draw("held_out", held_out_problems)

    @property
    def provides(self) -> frozenset[str]:
        """Every sum comes with a worked solution."""
        return frozenset({"solution"})

    def train(self) -> ProblemSet:
        return self._train

    def held_out(self) -> ProblemSet:
        """The problems to evaluate on: in no train part, whatever the order of their terms."""
        return self._held_out

    def _draw(self, part: str, count: int) -> ProblemSet:
        rng = Random(f"{self._seed}/{part}")
        drawn: dict[tuple[int, ...], None] = {}  # a set that keeps the order of drawing
        for _ in range(_TRIES_PER_PROBLEM * count):
            numbers = tuple(rng.randint(1, self._largest) for _ in range(rng.choice(self._terms)))
            if _is_held_out(numbers) == (part == "held_out"):
                drawn[numbers] = None
            if len(drawn) == count:
                return ProblemSet(tuple(_problem(numbers) for numbers in drawn))
        raise ValueError(
            f"{part}_problems is {count}; allowed: about {len(drawn)} with terms "
            f"{list(self._terms)} and largest {self._largest}"
        )


def _is_held_out(numbers: Sequence[int]) -> bool:
    digest = sha256("+".join(map(str, sorted(numbers))).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def _problem(numbers: Sequence[int]) -> Problem:
    return Problem(
        id="arithmetic/" + "+".join(map(str, numbers)),
        question=f"Compute {' + '.join(map(str, numbers))}.",
        answer=str(sum(numbers)),
        source="arithmetic",
        solution=write_solution(numbers, "in_order"),
    )


class _Solution:
    """A solution that is written line by line."""

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


def _in_order(terms: Sequence[int], solution: _Solution) -> int:
    total = terms[0]
    for term in terms[1:]:
        total = solution.step(f"{total}+{term}=", total + term)
    return total


def _backwards(terms: Sequence[int], solution: _Solution) -> int:
    return _in_order(terms[::-1], solution)


def _last_pair_apart(terms: Sequence[int], solution: _Solution) -> int:
    if len(terms) < 3:
        return _in_order(terms, solution)
    front = _in_order(terms[:-2], solution)
    back = _in_order(terms[-2:], solution)
    return _in_order((front, back), solution)


def _through_tens(terms: Sequence[int], solution: _Solution) -> int:
    total = terms[0]
    for term in terms[1:]:
        tens, ones = term - term % 10, term % 10
        parts = f"{tens}+{ones}" if tens and ones else f"{term}"
        total = solution.step(f"{total}+{parts}=", total + term)
    return total


def _in_words(terms: Sequence[int], solution: _Solution) -> int:
    total = terms[0]
    solution.lines.append(f"Start at {total}")
    for term in terms[1:]:
        total = solution.step(f"Add {term}: ", total + term)
    return total


STYLES: dict[str, Callable[[Sequence[int], _Solution], int]] = {
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
    solution = _Solution(slip_rate, repair_rate, rng or Random(0))
    total = STYLES[style](terms, solution)
    return "\n".join((*solution.lines, rf"\boxed{{{total}}}"))
