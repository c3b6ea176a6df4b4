"""Generated sums of several terms: problems that a tiny policy can learn within minutes."""

from collections.abc import Sequence
from hashlib import sha256
from random import Random

from rlrt.batch import Problem, ProblemSet
from rlrt.data.arithmetic_solutions import write_solution

HELD_OUT_SHARE = 8  # one problem in this many belongs to the held-out part
_TRIES_PER_PROBLEM = 200  # random draws for one new problem before the part counts as used up


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
        for name, count in (
            ("train_problems", train_problems),
            ("held_out_problems", held_out_problems),
        ):
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
        """The problems to learn from."""
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
