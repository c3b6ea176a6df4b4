"""What the teacher sees: the privileged context of a rollout."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rlrt.batch import Rollout


@dataclass(frozen=True)
class Demonstration:
    """Privileged text and the user message that holds it.

    ``template`` has the fields ``{question}``, ``{instruction}`` and ``{demonstration}``; only the
    demonstration is shortened where the message would not fit.
    """

    template: str
    text: str


class Context(ABC):
    """Chooses a demonstration for every rollout of a step, or none."""

    @abstractmethod
    def __call__(self, rollouts: Sequence[Rollout]) -> list[Demonstration | None]:
        """One entry per rollout, in order. All rollouts of a group are in ``rollouts``."""


class FirstOf(Context):
    """The first of several contexts that has something to show for a rollout."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        if not contexts:
            raise ValueError("context.contexts is empty, it needs at least one context")
        self.contexts = tuple(contexts)

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Demonstration | None]:
        choices = zip(*(context(rollouts) for context in self.contexts), strict=True)
        return [next((shown for shown in choice if shown is not None), None) for choice in choices]
