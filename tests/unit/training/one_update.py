"""One optimizer update through the real trainer, for tests of what it computes."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.loss.objective import Aggregation, Objective
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.teacher import Live
from rlrt.training.module import PolicyModule, UpdateOutcome
from rlrt.training.optimization import Optimization
from rlrt.training.updates import Update

LENGTHS = [7, 1, 23, 0, 12, 3, 18, 5]


def update_of(dtype: torch.dtype, uncredited: tuple[int, ...] = ()) -> Update:
    """Eight uneven responses to uneven prompts, one empty; some may have no credit."""
    draw = torch.Generator().manual_seed(3)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]

    def values(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(mask.shape, generator=draw, dtype=dtype)) * mask

    advantages = values(-1.5, 1.5)
    advantages[list(uncredited)] = 0

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 200, (count,), generator=draw).tolist())

    prompts = tuple(ids(3 + 2 * row) for row in range(8))
    return Update(
        rows=tuple(range(8)),
        prompts=prompts,
        teacher_prompts=(None,) * 8,
        responses=tuple(ids(length) for length in LENGTHS),
        counted_BT=mask,
        mask_BT=mask,
        sampled_BT=mask,
        student_scored_B=torch.ones(8, dtype=torch.bool),
        student_logprobs_BT=values(-8, -4),
        engine_logprobs_BT=values(-8, -4),
        advantages_BT=advantages,
        distillation_BT=torch.zeros_like(advantages),
    )


class OneUpdate(L.LightningDataModule):
    def __init__(self, update: Update) -> None:
        super().__init__()
        self.update = update

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader([self.update], batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch


class Measured(PolicyModule):
    """Keeps the metrics that its training steps return."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.update_metrics: list[dict[str, float]] = []

    def training_step(self, update: Update, index: int) -> UpdateOutcome:
        outcome = super().training_step(update, index)
        self.update_metrics.append(outcome["metrics"])
        return outcome


def fit(policy: PreTrainedModel, update: Update, folder: Path, **settings: Any) -> Measured:
    """One optimizer update through the real trainer; gradients stay on the parameters."""
    module = Measured(
        policy,
        settings.get("teacher", Live()),
        Objective(
            settings.get("loss", ClippedSurrogate()),
            settings.get("aggregation", Aggregation()),
            settings.get("divergence"),
            settings.get("importance_limit"),
        ),
        Optimization(learning_rate=1e-3, max_grad_norm=1e9),
        temperature=1.0,
        token_budget=settings.get("token_budget", 10**6),
    )
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=OneUpdate(update))
    return module


def gradient(module: PolicyModule) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.policy.parameters() if p.grad is not None])
