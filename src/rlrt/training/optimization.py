"""The optimiser of a run and its learning rate."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlrt.training.host_adamw import HostAdamW

MOMENTS = ("auto", "device", "host")


@dataclass(frozen=True)
class Optimization:
    """AdamW, a rate that rises linearly over ``warmup_steps`` rollout steps and then stays, and the
    clip of the gradient's norm.

    ``moments``: where AdamW's two moments live, on the device or the host; auto leaves it to who knows
    what a card holds, and is the device where nobody does. The updates are the same to the bit.
    """

    learning_rate: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 10
    max_grad_norm: float = 1.0
    moments: str = "auto"

    def __post_init__(self) -> None:
        for name, low in (("learning_rate", 0), ("max_grad_norm", 0)):
            if not getattr(self, name) > low:
                raise ValueError(
                    f"optimization.{name} is {getattr(self, name)}, it must be above 0"
                )
        for name in ("weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"optimization.{name} is {getattr(self, name)}, it must not be negative"
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimization.betas is {list(self.betas)}, both must lie in [0, 1)")
        if self.moments not in MOMENTS:
            raise ValueError(
                f"optimization.moments is {self.moments}, it must be one of {', '.join(MOMENTS)}"
            )

    def of(self, policy: nn.Module) -> dict[str, Any]:
        """Optimiser and scheduler, in the form that Lightning takes."""
        settings: dict[str, Any] = {
            "lr": self.learning_rate,
            "betas": self.betas,
            "weight_decay": self.weight_decay,
        }
        optimizer = (
            HostAdamW(policy.parameters(), **settings)
            if self.moments == "host"
            # makes no temporary tensor of a parameter's size
            else torch.optim.AdamW(policy.parameters(), fused=True, **settings)
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: min((done + 1) / max(self.warmup_steps, 1), 1.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
