"""A correct rollout of the same problem, by the policy itself."""

from rlrt.batch import SUCCESS_REWARD, Rollout
from rlrt.context.peer import Peer

TEMPLATE = (
    "{question}\n{instruction}\nCorrect solution:\n\n{demonstration}"
    "\n\nCorrectly solve the original question."
)


class CorrectPeer(Peer):
    """A correct other rollout of the group (arXiv:2601.20802); settings as in ``Peer``.

    By "first", rewards ``[0, 1, 1, 0]`` show the samples ``[1, 2, 1, 1]``, and ``[0, 1, 0, 0]`` show
    ``[1, none, 1, 1]``.
    """

    template = TEMPLATE

    def eligible(self, rollout: Rollout) -> bool:
        return rollout.reward >= SUCCESS_REWARD
