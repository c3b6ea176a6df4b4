"""Another rollout of the same problem: what all contexts share that show one."""

import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, Literal

from rlrt.batch import Rollout
from rlrt.context.context import Context, Demonstration
from rlrt.seeds import derive_seed
from rlrt.validation import validated

Choice = Literal["first", "random", "shortest", "longest"]
_SPACE = re.compile(r"\s*")


class Peer(Context):
    """One eligible other rollout of the group; none where there is no such rollout.

    A rollout is never its own peer: a teacher that sees the response itself copies it and finds
    every token likely. ``choice``: the first by sample number, the shortest or longest in response
    tokens (ties: the first of them), or a random one, which depends on (``seed``, step, group, own
    sample) alone. ``keep_thinking`` false removes ``<think>…</think>`` parts from the shown text; a
    rollout of which nothing is left is not shown.
    """

    template: ClassVar[str]

    @validated("context")
    def __init__(self, choice: Choice = "first", keep_thinking: bool = True, seed: int = 0) -> None:
        self.choice = choice
        self.keep_thinking = keep_thinking
        self.seed = seed

    @abstractmethod
    def eligible(self, rollout: Rollout) -> bool:
        """Whether this rollout may be shown to the others of its group."""

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        eligible: dict[int, list[Rollout]] = defaultdict(list)
        for rollout in sorted(rollouts, key=lambda rollout: rollout.sample):
            if self.eligible(rollout) and self._text(rollout).strip():
                eligible[rollout.group].append(rollout)
        return [self._shown(rollout, eligible[rollout.group], step) for rollout in rollouts]

    def _shown(self, own: Rollout, eligible: list[Rollout], step: int) -> Demonstration | None:
        peers = [peer for peer in eligible if peer.sample != own.sample]
        if not peers:
            return None
        return Demonstration(self.template, self._text(self._choose(peers, own, step)))

    def _choose(self, peers: list[Rollout], own: Rollout, step: int) -> Rollout:
        if self.choice == "random":
            return peers[derive_seed(self.seed, "peer", step, own.group, own.sample) % len(peers)]
        if self.choice == "first":
            return peers[0]
        choose = min if self.choice == "shortest" else max
        return choose(peers, key=lambda peer: len(peer.response.ids))

    def _text(self, rollout: Rollout) -> str:
        return rollout.text if self.keep_thinking else without_thinking(rollout.text)


def without_thinking(text: str) -> str:
    """``text`` without what stands from ``<think>`` to the next ``</think>``, and the space after it.

    What is never closed stays. Takes linear time: a search for the pair by regular expression would
    run to the end of the text from each of thousands of unclosed ``<think>``.
    """
    kept, position = [], 0
    while (start := text.find("<think>", position)) >= 0:
        end = text.find("</think>", start)
        if end < 0:
            break
        kept.append(text[position:start])
        space = _SPACE.match(text, end + len("</think>"))
        assert space is not None  # it matches nothing at least
        position = space.end()
    return "".join(kept) + text[position:]
