"""avg@k and pass@k as torchmetrics. Nothing is exchanged between ranks: the evaluator gathers."""

import torch
from torch import Tensor
from torchmetrics import Metric

from rlrt.functional.pass_at_k import pass_at_k


class AvgAtK(Metric):
    """Share of right samples among all of all problems: avg@k for k samples of each."""

    right: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, right_K: Tensor) -> None:
        """Take which of one problem's samples are right."""
        self.right += right_K.sum()
        self.samples += right_K.numel()

    def compute(self) -> Tensor:
        return self.right.double() / self.samples.clamp(min=1)


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

    def update(self, right_K: Tensor) -> None:
        """Take which of one problem's samples, at least k of them, are right."""
        self.total += pass_at_k(right_K.numel(), int(right_K.sum()), self.k)
        self.problems += 1

    def compute(self) -> Tensor:
        return self.total / self.problems.clamp(min=1)
