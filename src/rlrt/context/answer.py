"""The ground-truth answer of the problem."""

from collections.abc import Sequence

from rlrt.batch import Rollout
from rlrt.context.context import Context, Demonstration

TEMPLATE = (
    "{question}\n\nHere is a reference solution:\n{demonstration}\n\nAfter understanding the "
    "reference solution, please try to solve this problem using your own approach below.\n"
    "{instruction}"
)


class Answer(Context):
    """The problem's answer for every rollout, as in RLSD (arXiv:2605.10781, Table 4)."""

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        return [Demonstration(TEMPLATE, rollout.problem.answer) for rollout in rollouts]
