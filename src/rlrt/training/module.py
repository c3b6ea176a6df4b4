"""The LightningModule: holds the policy, scores both views, and makes the optimiser updates."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.errors import RunStoppedError
from rlrt.functional.microbatches import split_by_tokens
from rlrt.model.teacher import Teacher
from rlrt.model.views import (
    Ids,
    head_weight,
    response_hidden,
    response_hidden_split,
    score_divergence,
    score_responses,
)
from rlrt.training.objective import MicroBatch, Objective
from rlrt.training.updates import Update


class NonFiniteError(RunStoppedError):
    """A loss or gradient is not a number; the weights are still those before the update."""


@dataclass(frozen=True)
class Optimization:
    """AdamW, a rate that rises linearly over ``warmup_steps`` rollout steps and then stays, and the
    clip of the gradient's norm.
    """

    learning_rate: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 10
    max_grad_norm: float = 1.0

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


class PolicyModule(L.LightningModule):
    """One epoch is one rollout step, one training step one optimiser update."""

    def __init__(
        self,
        policy: PreTrainedModel,
        teacher: Teacher,
        objective: Objective,
        optimization: Optimization,
        temperature: float,
        token_budget: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.teacher = teacher
        weights = teacher.start(policy)
        if teacher.changes:
            self.teacher_weights = weights  # a part of this module, so checkpoints hold it
        self._teacher = (weights,)  # in a tuple it is none
        self.objective = objective
        self.optimization = optimization
        self.temperature = temperature
        self.token_budget = token_budget
        self.update_metrics: list[dict[str, float]] = []  # of the current rollout step

    @property
    def teacher_policy(self) -> PreTrainedModel:
        """The model of the teacher view; the policy itself where the teacher is live."""
        return self._teacher[0]

    def on_fit_start(self) -> None:
        self.teacher_policy.to(self.device)

    def score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies ``[B, T]`` of responses in the student view, current weights."""
        return self._score(self.policy, prompts, responses)

    def score_teacher(
        self, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]:
        """The same in the teacher view; ``prompts`` hold the privileged context."""
        return self._score(self.teacher_policy, prompts, responses)

    def _score(
        self, policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]:
        with self.trainer.precision_plugin.forward_context():
            return score_responses(policy, prompts, responses, self.temperature, self.token_budget)

    def score_divergence(
        self,
        prompts: Sequence[Ids],
        teacher_prompts: Sequence[Ids],
        responses: Sequence[Ids],
    ) -> Tensor:
        """``KL(student || teacher)`` over the vocabulary, ``[B, T]``, current weights."""
        with self.trainer.precision_plugin.forward_context():
            return score_divergence(
                self.policy,
                self.teacher_policy,
                prompts,
                teacher_prompts,
                responses,
                self.temperature,
                self.token_budget,
            )

    def training_step(self, update: Update, index: int) -> None:
        weights_BT = self.objective.aggregation(update.counted_BT, update.advantages_BT.dtype)
        # Without credit a response adds exactly 0 to loss and gradient; its tokens stay in weights_BT.
        credited_BT = (update.advantages_BT != 0) | (update.distillation_BT != 0)
        active = credited_BT.any(1).nonzero().flatten().tolist()
        lengths = [len(update.prompts[row]) + len(update.responses[row]) for row in active]

        optimizer: Any = self.optimizers()
        for parameter in self.policy.parameters():  # not None: without credit AdamW still coasts
            parameter.grad = torch.zeros_like(parameter)
        sums: defaultdict[str, Tensor] = defaultdict(
            lambda: torch.zeros((), dtype=torch.float64, device=self.device)
        )
        for group in split_by_tokens(lengths, self.token_budget):
            rows = [active[index] for index in group]
            for name, value in self._accumulate(update, weights_BT, rows).items():
                sums[name] += value
        totals = defaultdict(float, {name: float(value) for name, value in sums.items()})

        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.parameters(), self.optimization.max_grad_norm
        )
        loss = totals["surrogate"] + totals["distillation"]
        if not (torch.isfinite(norm) and math.isfinite(loss)):
            raise NonFiniteError(
                f"the loss ({loss}) or the gradient norm ({float(norm)}) of rollout step "
                f"{self.current_epoch} is not finite; the last checkpoint holds the weights before it"
            )
        optimizer.step()
        self._log_update(totals, float(norm), 1 - len(active) / len(update.responses))

    def _accumulate(self, update: Update, weights_BT: Tensor, rows: list[int]) -> dict[str, Tensor]:
        """Add a micro-batch's gradient; returns sums over its tokens."""
        batch = MicroBatch.of(update, weights_BT, rows, self.device)
        responses = [update.responses[row] for row in rows]
        loss = torch.zeros((), device=self.device)
        sums: dict[str, Tensor] = {}
        with self.trainer.precision_plugin.forward_context():
            hidden_NH = response_hidden(
                self.policy, [update.prompts[row] for row in rows], responses
            )
            head_VH = head_weight(self.policy)
            if (batch.advantages_N != 0).any():
                part, sums = self.objective.surrogate(batch, hidden_NH, head_VH, self.temperature)
                loss = loss + part
            if (batch.distillation_N != 0).any():
                part, more = self.objective.distillation(
                    batch,
                    hidden_NH,
                    head_VH,
                    lambda chosen: self._teacher_hidden(update, chosen),
                    self.temperature,
                )
                loss, sums = loss + part, sums | more
        self.manual_backward(loss)
        return sums

    def _teacher_hidden(self, update: Update, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Hidden states ``[N, H]`` of these rows in the teacher view, and the teacher's head."""
        prompts = [prompt for row in rows if (prompt := update.teacher_prompts[row]) is not None]
        assert len(prompts) == len(rows), "a rollout without a context is distilled"
        responses = [update.responses[row] for row in rows]
        hidden_NH = response_hidden_split(
            self.teacher_policy, prompts, responses, self.token_budget
        )
        return hidden_NH, head_weight(self.teacher_policy).detach()

    def _log_update(self, totals: Mapping[str, float], norm: float, skipped: float) -> None:
        scheduler: Any = self.lr_schedulers()
        tokens, distilled = totals["tokens"], totals["distilled"]
        row = {
            "loss/total": totals["surrogate"] + totals["distillation"],
            "loss/surrogate": totals["surrogate"],
            # both over the tokens of responses with an advantage
            "update/clip_fraction": totals["clipped"] / tokens if tokens else 0.0,
            "update/ratio_mean": totals["ratio"] / tokens if tokens else 1.0,
            "update/grad_norm": norm,
            "update/learning_rate": scheduler.get_last_lr()[0],
            "update/skipped_rollouts": skipped,
        }
        if self.objective.divergence is not None:
            row["loss/distillation"] = totals["distillation"]
            row["update/divergence_mean"] = totals["divergence"] / distilled if distilled else 0.0
            row["update/distilled_tokens"] = distilled
        self.update_metrics.append(row)

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        self.teacher.follow(self.teacher_policy, self.policy, self.current_epoch + 1)

    def configure_optimizers(self) -> Any:
        settings = self.optimization
        optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: min((done + 1) / max(settings.warmup_steps, 1), 1.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
