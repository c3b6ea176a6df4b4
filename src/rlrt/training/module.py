"""The LightningModule: holds the policy, scores both views, and makes the optimiser updates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.errors import RunStoppedError
from rlrt.functional.microbatches import split_by_tokens
from rlrt.functional.ratios import bounded_exp
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.views import Ids, response_logprobs, score_responses
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
        loss: ClippedSurrogate,
        aggregation: Aggregation,
        optimization: Optimization,
        temperature: float,
        token_budget: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.loss = loss
        self.aggregation = aggregation
        self.optimization = optimization
        self.temperature = temperature
        self.token_budget = token_budget
        self.update_metrics: list[dict[str, float]] = []  # of the current rollout step

    def score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies ``[B, T]`` of responses behind prompts, under current weights.

        Either view: the prompt alone decides which one it is.
        """
        with self.trainer.precision_plugin.forward_context():
            return score_responses(
                self.policy, prompts, responses, self.temperature, self.token_budget
            )

    def training_step(self, update: Update, index: int) -> None:
        weights_BT = self.aggregation(update.mask_BT, update.advantages_BT.dtype)
        # Without credit a response adds exactly 0 to loss and gradient; its tokens stay in weights_BT.
        active = (update.advantages_BT != 0).any(1).nonzero().flatten().tolist()
        lengths = [len(update.prompts[row]) + len(update.responses[row]) for row in active]

        optimizer: Any = self.optimizers()
        for parameter in self.policy.parameters():  # not None: without credit AdamW still coasts
            parameter.grad = torch.zeros_like(parameter)
        totals = torch.zeros(4, dtype=torch.float64)
        for group in split_by_tokens(lengths, self.token_budget):
            totals += self._accumulate(update, weights_BT, [active[index] for index in group])

        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.parameters(), self.optimization.max_grad_norm
        )
        if not (torch.isfinite(norm) and torch.isfinite(totals).all()):
            raise NonFiniteError(
                f"the loss ({float(totals[0])}) or the gradient norm ({float(norm)}) of rollout step "
                f"{self.current_epoch} is not finite; the last checkpoint holds the weights before it"
            )
        optimizer.step()
        scheduler: Any = self.lr_schedulers()
        rate = scheduler.get_last_lr()[0]
        tokens = max(float(totals[3]), 1.0)
        self.update_metrics.append(
            {
                "loss/surrogate": float(totals[0]),
                # both over the tokens of responses with credit
                "update/clip_fraction": float(totals[1]) / tokens,
                "update/ratio_mean": float(totals[2]) / tokens if totals[3] else 1.0,
                "update/grad_norm": float(norm),
                "update/learning_rate": rate,
                "update/skipped_rollouts": 1 - len(active) / len(update.responses),
            }
        )

    def _accumulate(self, update: Update, weights_BT: Tensor, rows: list[int]) -> Tensor:
        """Add a micro-batch's gradient; returns its loss, clipped tokens, sum of ratios, tokens."""
        mask_BT = update.mask_BT[rows]

        def flat(values_BT: Tensor) -> Tensor:
            return values_BT[rows][mask_BT].to(self.device)

        student_N, advantages_N = flat(update.student_logprobs_BT), flat(update.advantages_BT)
        with self.trainer.precision_plugin.forward_context():
            logprobs_N, _ = response_logprobs(
                self.policy,
                [update.prompts[row] for row in rows],
                [update.responses[row] for row in rows],
                self.temperature,
            )
        assert logprobs_N.shape == student_N.shape, (logprobs_N.shape, student_N.shape)
        token_loss_N = self.loss(
            logprobs_N, student_N, flat(update.engine_logprobs_BT), advantages_N
        )
        loss = (token_loss_N * flat(weights_BT)).sum()
        self.manual_backward(loss)
        ratio_N = bounded_exp(logprobs_N.detach() - student_N)
        clipped_N = torch.where(
            advantages_N > 0, ratio_N > 1 + self.loss.clip_high, ratio_N < 1 - self.loss.clip_low
        ) & (advantages_N != 0)
        sums = (loss.detach(), clipped_N.sum(), ratio_N.sum(), torch.tensor(len(ratio_N)))
        return torch.stack([value.cpu().double() for value in sums])

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()

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
