"""How far an update's gradient moves with the split into micro-batches, beside TRL's SDPO trainer.

``python bench/distillation_split.py [--json FILE]``: the same rollouts and weights in every row, one
whole update each; the figure is ‖gradient - gradient of the whole‖ / ‖gradient of the whole‖. Both
sides run their own trainer. Of TRL's, only the sampling is replaced: ``_prepare_training_batch`` hands
out the prepared rollouts; splitting, ``compute_loss``, scaling and accumulation are TRL's, with
``per_device_train_batch_size`` m and ``gradient_accumulation_steps`` 16 / m. Neither clips the
gradient. TRL is a dependency of this benchmark only (the extra ``bench``).
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import TrainerCallback

from rlrt.functional.divergences import AlphaDivergence
from rlrt.functional.microbatches import split_by_tokens
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.load import load_policy
from rlrt.model.teacher import Frozen
from rlrt.model.views import score_responses
from rlrt.training.module import Optimization, PolicyModule
from rlrt.training.objective import Objective
from rlrt.training.updates import Update

try:
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
except ImportError as error:
    raise SystemExit(f"TRL is missing ({error}); install it: pip install -e '.[bench]'") from error

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny"
LENGTHS = [3, 120, 17, 60, 5, 200, 33, 90, 8, 150, 2, 45, 12, 75, 24, 180]  # response tokens
WHOLE = len(LENGTHS)
SPLITS = (1, 2, 4, 8)  # rollouts per micro-batch
WITHOUT_CONTEXT = (3, 7, 10, 11)
TOP_K = {  # TRL's settings for the loss of AlphaDivergence(0.5, 100)
    "distillation_mode": "topk_logits",
    "distillation_topk": 100,
    "distillation_add_tail": True,
    "distillation_alpha": 0.5,
}


@dataclass(frozen=True)
class Rollouts:
    """Sixteen rollouts of uneven length; a teacher prompt of None is a rollout without a context."""

    prompts: tuple[tuple[int, ...], ...]
    teacher_prompts: tuple[tuple[int, ...] | None, ...]
    responses: tuple[tuple[int, ...], ...]
    advantages: tuple[float, ...]

    @classmethod
    def draw(cls, vocabulary: int) -> "Rollouts":
        draw = torch.Generator().manual_seed(0)

        def ids(count: int) -> tuple[int, ...]:
            return tuple(torch.randint(10, vocabulary, (count,), generator=draw).tolist())

        prompts = tuple(ids(5 + 3 * (row % 4)) for row in range(WHOLE))
        behind = (None if row in WITHOUT_CONTEXT else ids(20 + row) for row in range(WHOLE))
        return cls(
            prompts=prompts,
            teacher_prompts=tuple(c and p + c for p, c in zip(prompts, behind, strict=True)),
            responses=tuple(ids(length) for length in LENGTHS),
            advantages=tuple(torch.linspace(-1.5, 1.5, WHOLE).tolist()),
        )

    def update(self, policy_share: float, all_counted: bool) -> Update:
        """Advantages times the share, divergence times the rest; sampled by the same weights."""
        mask_BT = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
        context_B1 = torch.tensor([p is not None for p in self.teacher_prompts])[:, None]
        policy = load_policy(str(TINY), torch.float32)
        logprobs_BT, _ = score_responses(policy, self.prompts, self.responses, 1.0, 10**6)
        return Update(
            prompts=self.prompts,
            teacher_prompts=self.teacher_prompts,
            responses=self.responses,
            counted_BT=mask_BT if all_counted else mask_BT & context_B1,
            mask_BT=mask_BT,
            student_logprobs_BT=logprobs_BT,
            engine_logprobs_BT=logprobs_BT,
            advantages_BT=torch.tensor(self.advantages)[:, None] * mask_BT * policy_share,
            distillation_BT=(mask_BT & context_B1).float() * (1 - policy_share),
        )

    def token_budget(self, rollouts: int) -> int:
        """A budget that gives about as many micro-batches as ``rollouts`` in each would."""
        if rollouts == 1:
            return 1
        lengths = [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]
        budgets = range(max(lengths), sum(lengths) * 16, 8)
        return next(b for b in budgets if len(split_by_tokens(lengths, b)) <= WHOLE // rollouts)


@dataclass(frozen=True)
class OneUpdate(L.LightningDataModule):
    update: Update

    def __post_init__(self) -> None:
        super().__init__()
