"""Whether the cards can hold what training keeps on them, told before any weights load."""

import math

from rlrt.errors import UserError

TRAINED_BYTES = 16  # of a parameter: weight, gradient and AdamW's two moments, float32
TEACHER_BYTES = 4  # of a parameter of a teacher with weights of its own
GB = 10**9


def require_room(parameters: int, own_teacher: bool, ranks: int, card_bytes: int) -> None:
    """UserError where a card has no room for its share; activations and the engine come on top."""
    needed = parameters * (TRAINED_BYTES + (TEACHER_BYTES if own_teacher else 0))
    if needed <= card_bytes * ranks:
        return
    raise UserError(
        f"the policy has {parameters / GB:.1f}e9 parameters, whose weights, gradients and optimiser "
        f"state take {needed / GB:.0f} GB, and {ranks} card{'s' if ranks > 1 else ''} of "
        f"{card_bytes / GB:.0f} GB cannot hold them: use strategy=fsdp with trainer.devices of at "
        f"least {math.ceil(needed / card_bytes)}, more for activations and the engine"
    )
