"""Optimiser state that lies on the host while the engine generates on the device."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def require_restored(optimizer: Optimizer) -> None:
    pass
