"""A partial hint: the beginning of a correct rollout of the same problem."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rlrt.batch import Rollout
from rlrt.context.context import Context, Demonstration
from rlrt.context.correct_peer import CorrectPeer
from rlrt.context.peer import Choice
from rlrt.validation import validated

TEMPLATE = (
    "{question}\n{instruction}\nOnly the beginning of a correct solution:\n\n{demonstration}"
    "\n\nThe rest of it is left out. Correctly solve the original question from the start."
)
_LAST_SPACE = re.compile(r"\s\S*\Z")


class Hint(Context):
    """The first ``fraction`` of the solution that ``CorrectPeer`` would show; its other settings.

    None where there is no correct peer, or where not one word of its solution fits the fraction.
    """

    @validated("context")
    def __init__(
        self,
        fraction: Annotated[
            float, Field(gt=0, lt=1, description="it must lie between 0 and 1, ends out")
        ] = 0.5,
        choice: Choice = "first",
        keep_thinking: bool = True,
        seed: int = 0,
    ) -> None:
        self.fraction = fraction
        self.peer = CorrectPeer(choice, keep_thinking, seed)

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        texts = [
            "" if peer is None else beginning(peer.text, self.fraction)
            for peer in self.peer(rollouts, step)
        ]
        return [Demonstration(TEMPLATE, text, keep_start=True) if text else None for text in texts]


def beginning(text: str, fraction: float) -> str:
    """The whole words within the first ``fraction`` of the characters, outer white space aside."""
    text = text.strip()
    head = text[: int(fraction * len(text)) + 1]  # one more: a word may end exactly there
    cut = _LAST_SPACE.search(head)
    return "" if cut is None else head[: cut.start()].rstrip()
