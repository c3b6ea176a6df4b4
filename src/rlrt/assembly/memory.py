"""Whether the cards can hold what training keeps on them, told before any weights load."""

import math
from dataclasses import dataclass

from rlrt.errors import UserError

WEIGHT = GRADIENT = 4  # bytes of a parameter, float32
MOMENTS = 8  # of AdamW
GB = 10**9


@dataclass(frozen=True)
class Held:
    """What a run keeps on its cards, apart from activations: bytes follow from parameters."""

    policy: int  # parameters
    teacher: int  # of a teacher with weights of its own, else 0
    engine_share: float  # of each card, while the engine samples
    offload: bool  # the optimiser's state is elsewhere while the engine samples

    @property
    def updating(self) -> int:
        """Bytes on all cards together during an update, when the engine sleeps."""
        return self.policy * (WEIGHT + GRADIENT + MOMENTS) + self.teacher * WEIGHT

    @property
    def sampling(self) -> int:
        """The same beside the engine; there are no gradients then."""
        moments = 0 if self.offload else MOMENTS
        return self.policy * (WEIGHT + moments) + self.teacher * WEIGHT


def require_room(held: Held, cards: int, card_bytes: int) -> None:
    """UserError where the cards cannot hold it; activations come on top."""
    beside = card_bytes * (1 - held.engine_share)
    needed = max(
        math.ceil(held.updating / card_bytes),
        math.ceil(held.sampling / beside) if beside > 0 else math.inf,
    )
    if needed <= cards:
        return
    raise UserError(
        f"the policy has {held.policy / GB:.1f}e9 parameters: training keeps "
        f"{held.updating / GB:.0f} GB during an update, and {held.sampling / GB:.0f} GB beside the "
        f"engine's share of {held.engine_share:.0%} (engine.gpu_memory_utilization); {cards} "
        f"card{'s' if cards > 1 else ''} of {card_bytes / GB:.0f} GB cannot hold that: use strategy=fsdp "
        f"with at least {needed} cards, more for activations"
    )
