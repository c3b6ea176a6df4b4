"""Free text about a problem that the data brings: advice, a frequent mistake, a remark."""

from collections.abc import Sequence

from rlrt.batch import Rollout
from rlrt.context.context import Context, Demonstration

TEMPLATE = (
    "{question}\n{instruction}\nFeedback on this problem:\n\n{demonstration}"
    "\n\nMind the feedback and correctly solve the original question."
)


class Feedback(Context):
    """The problem's feedback; none where it has none."""

    needs = frozenset({"feedback"})

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        remarks = (rollout.problem.feedback for rollout in rollouts)
        return [None if text is None else Demonstration(TEMPLATE, text) for text in remarks]
