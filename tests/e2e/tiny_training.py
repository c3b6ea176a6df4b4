"""A training small enough to compare whole states of, run as a program.

``python tiny_training.py FOLDER RANKS STEPS sharded|whole [CHECKPOINT]``, or ``main`` with one rank:
every rank sees the same data, so the number of ranks changes the rounding of a mean of equal gradients
alone. RANK_1_FILE_BYTES limits what one rank may write to a file, as a full disk does; RANK_1_DIES_AT
names an epoch.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from rlrt.training.checkpoint import AtomicCheckpointIO, Checkpoints
from rlrt.training.liveness import RankWatch
from rlrt.training.metrics import StepTable

ROWS = 8


class Policy(nn.Module):
    """Sizes that no number of ranks divides, and a head that is tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(5, 7)
        self.layer = nn.Linear(7, 5)
        self.head = nn.Linear(5, 7)
        self.head.weight = self.embedding.weight

    def forward(self, batch: Tensor) -> Tensor:
        """Some output."""
        output: Tensor = self.head(self.layer(self.embedding(batch).tanh()))
        return output


class Tiny(L.LightningModule):
    """A policy that learns, and a copy that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.policy = Policy()
        self.follower = Policy()
        self.register_buffer("seen", torch.zeros(()))

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
            for model in (self.policy, self.follower):
                fully_shard(model.layer, mesh=mesh)
                fully_shard(model, mesh=mesh)

    def training_step(self, batch: Tensor, number: int) -> None:
        if self.global_rank == 1 and os.environ.get("RANK_1_DIES_AT") == str(self.current_epoch):
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward((self.policy(batch) - 1).square().sum())
        optimizer.step()
        self.seen += 1

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        with torch.no_grad():
            for mine, theirs in zip(
                self.follower.parameters(), self.policy.parameters(), strict=True
            ):
                mine.lerp_(theirs, 0.5)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.policy.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 / (done + 1))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def main(folder: str, count: str, steps: str, how: str, *rest: str) -> None:
    """Train; checkpoints come at every step."""
    if os.environ.get("LOCAL_RANK") == "1" and (limit := os.environ.get("RANK_1_FILE_BYTES")):
        sys.dont_write_bytecode = True  # half of a module's bytecode would stay behind
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    data = torch.linspace(-1, 1, ROWS * 5).reshape(ROWS, 5)
    checkpoints = Checkpoints(
        Path(folder) / "checkpoints", StepTable(Path(folder) / "e.csv", 0), "avg@8", keep=9
    )
    with RankWatch(Path(folder)) as watch:
        trainer = L.Trainer(
            accelerator="cpu",
            devices=int(count),
            strategy="auto"
            if count == "1"
            else ModelParallelStrategy(int(count), 1, save_distributed_checkpoint=how == "sharded"),
            max_epochs=int(steps),
            callbacks=[watch, checkpoints],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        trainer.fit(Tiny(), DataLoader(data, batch_size=4), ckpt_path=rest[0] if rest else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
