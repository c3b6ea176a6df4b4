"""avg@k and pass@k as torchmetrics. Nothing is exchanged between ranks: the evaluator gathers."""

import torch
from torch import Tensor
from torchmetrics import Metric

from rlrt.batch import SUCCESS_REWARD
from rlrt.functional.pass_at_k import pass_at_k


class AvgAtK(Metric):
    """Mean reward over all samples of all problems: avg@k for k samples of each."""

    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, rewards_K: Tensor) -> None:
        """Take the rewards of one problem's samples."""
        self.total += rewards_K.double().sum()
        self.samples += rewards_K.numel()

    def compute(self) -> Tensor:
        return self.total / self.samples.clamp(min=1)


class PassAtK(Metric):
    """Unbiased pass@k (arXiv:2107.03374, eq. 1), averaged over problems."""

    total: Tensor
    problems: Tensor

    def __init__(self, k: int) -> None:
        super().__init__(sync_on_compute=False)
        if k < 1:
            raise ValueError(f"evaluation.pass_at holds {k}, every k must be at least 1")
        self.k = k
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, rewards_K: Tensor) -> None:
        """Take the rewards of one problem's samples, at least k of them."""
        self.total += pass_at_k(rewards_K.numel(), int((rewards_K >= SUCCESS_REWARD).sum()), self.k)
        self.problems += 1

    def compute(self) -> Tensor:
        return self.total / self.problems.clamp(min=1)
