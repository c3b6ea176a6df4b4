"""The one place of the benchmark that knows how the project trains: what changes there changes here."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import lightning as L
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from workload import TINY, Workload

from rlrt import distributed
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.context.correct_peer import CorrectPeer
from rlrt.credit.assigner import CreditAssigner
from rlrt.credit.grpo import GRPO
from rlrt.data.prompts import Prompts
from rlrt.loss.objective import Aggregation, Objective
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.load import load_tokenizer
from rlrt.model.packed_attention import use_packed_attention
from rlrt.model.teacher import Live
from rlrt.training.module import FullySharded, PolicyModule
from rlrt.training.optimization import Optimization
from rlrt.training.scoring import (
    TeacherPrompts,
    has_prompt,
    outcomes_of,
    render_teacher_prompts,
    scored_batch,
)
from rlrt.training.updates import Update, split_updates

CLIP = 0.2  # of the ratio, on both sides of a comparison
LEARNING_RATE = 1e-20  # below the weights' resolution: every repeat is the same update
NO_CLIP = 1e9  # of the gradient's norm: it is computed and changes nothing
Prepare = Callable[[PolicyModule], list[Update]]


class SteadyModule(PolicyModule):
    """The project's module; keeps its optimizer from one fit to the next, as a run has it."""

    kept: Any = None

    def configure_optimizers(self) -> Any:
        if self.kept is None:
            self.kept = super().configure_optimizers()
        return self.kept


def module_of(
    policy: PreTrainedModel,
    token_budget: int,
    credit: CreditAssigner | None = None,
    aggregation: Aggregation | None = None,
    moments: str = "auto",
) -> PolicyModule:
    """A module with the plain clipped loss; by default GRPO's, a mean over the update's tokens."""
    use_packed_attention(policy)  # as the project's loader does
    credit = credit or GRPO()
    loss = ClippedSurrogate(CLIP, CLIP, dual_clip=None, rollout_correction_limit=None)
    return SteadyModule(
        policy,
        Live(),
        Objective(loss, aggregation or Aggregation(), credit.divergence, credit.importance_limit),
        Optimization(learning_rate=LEARNING_RATE, max_grad_norm=NO_CLIP, moments=moments),
        temperature=1.0,
        token_budget=token_budget,
    )


def rollouts_of(load: Workload) -> list[Rollout]:
    """The project's records of a workload."""
    return [
        Rollout(
            problem=Problem(str(row // load.samples), load.questions[row], "0", "bench"),
            group=row // load.samples,
            sample=row % load.samples,
            prompt_ids=load.prompts[row],
            response=Response(ids, (-1.0,) * len(ids), truncated=len(ids) >= load.limit),
            text=load.texts[row],
            verdict=Verdict.RIGHT if load.rewards[row] else Verdict.WRONG,
            reward=load.rewards[row],
        )
        for row, ids in enumerate(load.responses)
    ]


def teacher_prompts(rollouts: list[Rollout], credit: CreditAssigner) -> TeacherPrompts:
    """Behind the first correct peer, where the credit has a use for the teacher."""
    outcomes = outcomes_of(rollouts)
    used_B = credit.reads_teacher(outcomes, 0) | credit.distills(outcomes, 0)
    demonstrations = CorrectPeer()(rollouts, 0) if used_B.any() else [None] * len(rollouts)
    prompts, _ = render_teacher_prompts(
        rollouts, demonstrations, used_B, Prompts(tokenizer()), max_model_tokens=2**20
    )
    return prompts


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """Of models/tiny."""
    return load_tokenizer(TINY)


def one_update(rollouts: list[Rollout], credit: CreditAssigner) -> Prepare:
    """Scores both views as a rollout step does, and gives all rollouts to one update."""

    def prepare(module: PolicyModule) -> list[Update]:
        outcomes = outcomes_of(rollouts)
        teacher = teacher_prompts(rollouts, credit)
        student_B = credit.reads_student(outcomes, has_prompt(teacher), 0)
        teacher_B = credit.reads_teacher(outcomes, 0)
        divergence = credit.reads_divergence
        batch = scored_batch(rollouts, outcomes, teacher, student_B, teacher_B, divergence, module)
        groups = len({rollout.group for rollout in rollouts})
        return split_updates(rollouts, teacher, batch, credit(batch, 0), groups)

    return prepare


@dataclass
class Seconds(L.Callback):
    """What each round of a fit took: scoring, and the update (forward, backward, optimizer step)."""

    prepare: Prepare
    after_score: Callable[[], None]
    scores_s: list[float] = field(default_factory=list)
    updates_s: list[float] = field(default_factory=list)

    @property
    def score_s(self) -> float:
        """Of the last round."""
        return self.scores_s[-1]

    @property
    def update_s(self) -> float:
        """Of the last round."""
        return self.updates_s[-1]

    def on_train_epoch_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        began = clock()
        trainer.datamodule.updates = self.prepare(module)  # type: ignore[attr-defined]
        self.scores_s.append(clock() - began)
        self.after_score()

    def on_train_batch_start(self, *_: Any) -> None:
        self.began = clock()

    def on_train_batch_end(self, *_: Any) -> None:
        self.updates_s.append(clock() - self.began)


def clock() -> float:
    """Seconds, once an accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Updates(L.LightningDataModule):
    """The update that the callback puts here, on the device as it comes."""

    updates: list[Update]

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(Lazily(self), batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch


class Lazily(torch.utils.data.Dataset[Update]):
    """One update, read when the epoch asks for it: it is made after the loader."""

    def __init__(self, data: Updates) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Update:
        return self.data.updates[index]


def quiet() -> None:
    """Keep the screen for tables: no banners, no advice."""
    for name in ("lightning.pytorch", "lightning.fabric", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def run(
    module: PolicyModule,
    prepare: Prepare,
    precision: Any = "32-true",
    accelerator: str = "cpu",
    after_score: Callable[[], None] = lambda: None,
    rounds: int = 1,
    others: Sequence[L.Callback] = (),
) -> Seconds:
    """Score and update through the real trainer; the last gradients stay on the parameters."""
    seconds = Seconds(prepare, after_score)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_epochs=rounds,
            accelerator=accelerator,
            devices=1,
            precision=precision,
            strategy="auto" if precision == "32-true" else FullySharded(),
            callbacks=[seconds, *others],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, datamodule=Updates())
    return seconds


def score(module: PolicyModule, load: Workload) -> None:
    """The student view of all rollouts, inside a fit."""
    module.score(load.prompts, load.responses)


def gradients(module: PolicyModule) -> dict[str, Tensor]:
    """Of all weights, by name, as the last update left them."""
    named = module.policy.named_parameters()
    return {
        name: distributed.full_tensor(p.grad).clone() for name, p in named if p.grad is not None
    }
