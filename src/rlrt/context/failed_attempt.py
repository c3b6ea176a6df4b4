"""A wrong rollout of the same problem, by the policy itself."""

from rlrt.batch import SUCCESS_REWARD, Rollout, Verdict
from rlrt.context.peer import Peer

TEMPLATE = (
    "{question}\n{instruction}\nWrong attempt, which does not reach the correct answer:\n\n"
    "{demonstration}\n\nDo not repeat its mistake. Correctly solve the original question."
)


class FailedAttempt(Peer):
    """A wrong other rollout of the group, marked as wrong; settings as in ``Peer``.

    An undecided rollout is never shown: it may be right.
    """

    template = TEMPLATE

    def eligible(self, rollout: Rollout) -> bool:
        return rollout.reward < SUCCESS_REWARD and rollout.verdict is not Verdict.UNDECIDED
