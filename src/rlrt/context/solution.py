"""The worked reference solution that the data brings."""

from collections.abc import Sequence

from rlrt.batch import Rollout
from rlrt.context.context import Context, Demonstration

TEMPLATE = (
    "{question}\n\nHere is a worked reference solution:\n\n{demonstration}\n\nMake sure that you "
    "understand every step of the reference solution, then solve the problem in your own words "
    "below.\n{instruction}"
)


class Solution(Context):
    """The problem's reference solution, as in OPSD (arXiv:2601.18734); none where it has none."""

    needs = frozenset({"solution"})

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        solutions = (rollout.problem.solution for rollout in rollouts)
        return [None if text is None else Demonstration(TEMPLATE, text) for text in solutions]
