"""What the teacher sees: the privileged context of a rollout."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rlrt.batch import Rollout


@dataclass(frozen=True)
class Demonstration:
    """Privileged text and the user message that holds it.

    ``template`` has the fields ``{question}``, ``{instruction}`` and ``{demonstration}``; only the
    demonstration is shortened where the message would not fit: from its start, since its end holds
    the answer, or with ``keep_start`` from its end.
    """

    template: str
    text: str
    keep_start: bool = False


class Context(ABC):
    """Chooses a demonstration for every rollout of a step, or none.

    ``needs`` names the optional fields of a problem ("solution", "feedback") that it shows: a run
    whose data has none of them is refused.
    """

    needs: frozenset[str] = frozenset()

    @abstractmethod
    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        """One entry per rollout, in order. All rollouts of a group are in ``rollouts``.

        ``step`` is the rollout step, from 0, for choices by chance.
        """


class FirstOf(Context):
    """The first of several contexts that has something to show for a rollout.

    It needs what any of them needs: a member that never shows anything is a setting without use.
    """

    def __init__(self, contexts: Sequence[Context]) -> None:
        if not contexts:
            raise ValueError("context.contexts is empty, it needs at least one context")
        self.contexts = tuple(contexts)
        self.needs = frozenset().union(*(context.needs for context in self.contexts))

    def __call__(self, rollouts: Sequence[Rollout], step: int) -> list[Demonstration | None]:
        choices = zip(*(context(rollouts, step) for context in self.contexts), strict=True)
        return [next((shown for shown in choice if shown is not None), None) for choice in choices]
