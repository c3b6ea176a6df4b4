"""A correct rollout of the same problem, by the policy itself."""

import re
from collections import defaultdict
from collections.abc import Sequence

from rlrt.batch import SUCCESS_REWARD, Rollout
from rlrt.context.context import Context, Demonstration

TEMPLATE = (
    "{question}\n{instruction}\nCorrect solution:\n\n{demonstration}"
    "\n\nCorrectly solve the original question."
)
THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def first_correct_peer(rewards: Sequence[float]) -> list[int | None]:
    """For each rollout of one group the index of the first correct other one (arXiv:2601.20802).

    ``[0, 1, 1, 0] -> [1, 2, 1, 1]``, ``[0, 1, 0, 0] -> [1, None, 1, 1]``. A rollout is never its own
    peer: a teacher that sees the response itself copies it and finds every token likely.
    """
    correct = [i for i, reward in enumerate(rewards) if reward >= SUCCESS_REWARD]
    return [next((i for i in correct if i != own), None) for own in range(len(rewards))]


class CorrectPeer(Context):
    """The first correct other rollout of the group; none where there is no such rollout.

    ``keep_thinking`` false removes ``<think>…</think>`` parts from the shown text.
    """

    def __init__(self, keep_thinking: bool = True) -> None:
        self.keep_thinking = keep_thinking

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Demonstration | None]:
        shown: list[Demonstration | None] = [None] * len(rollouts)
        members: dict[int, list[int]] = defaultdict(list)
        for index, rollout in enumerate(rollouts):
            members[rollout.group].append(index)
        for group in members.values():
            peers = first_correct_peer([rollouts[i].reward for i in group])
            for index, peer in zip(group, peers, strict=True):
                if peer is not None:
                    shown[index] = Demonstration(TEMPLATE, self._text(rollouts[group[peer]].text))
        return shown

    def _text(self, text: str) -> str:
        return text if self.keep_thinking else THINKING.sub("", text)
