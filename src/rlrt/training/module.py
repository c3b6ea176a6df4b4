"""The LightningModule: holds the policy, scores both views, and makes the optimizer updates."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt import distributed
from rlrt.errors import RunStoppedError
from rlrt.loss.objective import SUMS, MicroBatch, Objective
from rlrt.model.comparison import score_divergence
from rlrt.model.fused_head import distilled_tokens, token_logprobs
from rlrt.model.packing import Packed
from rlrt.model.sharding import (
    both_unsharded,
    fill,
    is_hollow,
    is_sharded,
    keep_in,
    released,
    shard,
)
from rlrt.model.teacher import Teacher
from rlrt.model.views import (
    Ids,
    Seen,
    head_weight,
    passes,
    response_hidden,
    score_responses,
    teacher_hidden,
)
from rlrt.training.optimization import Optimization
from rlrt.training.performance import BACKWARD, Shape, Work
from rlrt.training.strategy import FullySharded
from rlrt.training.updates import Reading, Update, first_reading, micro_batch

GIB = 2**30
# What PyTorch says of a GPU, and of the host: of that no more than the bytes it asked for.
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")
_FREE = re.compile(r"of which ([\d.]+ \w+) is free")
_HOST_FULL = "can't allocate memory"


class TrainingMemoryError(RunStoppedError):
    """An update or a reading of a view does not fit in memory."""


@contextmanager
def within_memory(doing: str, cures: Sequence[str]) -> Iterator[None]:
    """TrainingMemoryError where memory is full, on a device or on the host.

    ``doing``: what was done; ``cures``: the settings that may help, the first one first.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        plain = isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)
        if plain and _HOST_FULL not in str(error):
            raise
        raise TrainingMemoryError(
            f"out of memory in {doing}{_figures(str(error))}: use {', or '.join(cures)}"
        ) from error


def _figures(said: str) -> str:
    """What was asked and what was free, where the error says it."""
    asked, free = _ASKED.search(said), _FREE.search(said)
    parts = []
    if asked is not None:
        number, unit = asked.groups()
        amount = f"{float(number) / GIB:.2f} GiB" if unit == "bytes" else f"{number} {unit}"
        parts.append(f"{amount} asked for")
    if free is not None:
        parts.append(f"{free[1]} free")
    elif torch.cuda.is_available():
        parts.append(f"{torch.cuda.mem_get_info()[0] / GIB:.2f} GiB free")
    return f" ({', '.join(parts)})" if parts else ""


class NonFiniteError(RunStoppedError):
    """A loss or gradient is not a number; the weights are still those before the update."""


class PolicyModule(L.LightningModule):
    """One epoch is one rollout step, one training step one optimizer update.

    Of several ranks each holds its own groups' rollouts; all make every pass and update together. A
    hollow policy is filled once it is sharded, from ``source``, which rank 0 alone holds.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        teacher: Teacher,
        objective: Objective,
        optimization: Optimization,
        temperature: float,
        token_budget: int,
        source: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.teacher = teacher
        weights = teacher.start(policy)
        if teacher.changes:
            self.teacher_weights = weights  # a part of this module, so checkpoints hold it
        self._teacher = (weights,)  # in a tuple it is none
        self._sources = (source, teacher.source(source))  # neither are these
        self.objective = objective
        self.optimization = optimization
        self.temperature = temperature
        self.token_budget = token_budget
        # of the current rollout step
        self.update_metrics: list[dict[str, float]] = []
        self.readings: list[Reading] = []
        self.update_tokens: list[float] = []  # through the layers, of this rank
        self.work: defaultdict[str, Work] = defaultdict(Work)

    @property
    def teacher_policy(self) -> PreTrainedModel:
        """The model of the teacher view; the policy itself where the teacher is live."""
        return self._teacher[0]

    def configure_model(self) -> None:
        strategy, sources = self.trainer.strategy, self._sources
        self._sources = (None, None)  # a whole policy each, on the host
        if not isinstance(strategy, FullySharded):
            return
        dtype = strategy.compute_dtype
        if not (self.teacher.is_policy or self.teacher.changes):
            # What follows the policy adds up differences too small for bfloat16; what stands still is
            # read in ``dtype`` alone.
            keep_in(self.teacher_policy, dtype)
        for weights, source in zip((self.policy, self.teacher_policy), sources, strict=True):
            if not is_sharded(weights):
                shard(weights, strategy.ranks_mesh, dtype)
                if is_hollow(weights):
                    fill(weights, source, strategy.root_device)

    def on_fit_start(self) -> None:
        self.teacher_policy.to(self.device)

    def begin_step(self) -> None:
        """Forget what was counted and measured in the rollout step before."""
        self.update_metrics, self.readings, self.update_tokens = [], [], []
        self.work = defaultdict(Work)

    def work_in(self, seconds: Mapping[str, float]) -> dict[str, Work]:
        """What each of these stages did in its seconds of this step."""
        return {stage: self.work[stage] + Work(seconds=spent) for stage, spent in seconds.items()}

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
        count, budget = self._count("score", policy), self.token_budget
        with self._within_memory("a reading of responses"):
            return score_responses(policy, prompts, responses, self.temperature, budget, count)

    def score_divergence(
        self,
        prompts: Sequence[Ids],
        teacher_prompts: Sequence[Ids],
        responses: Sequence[Ids],
    ) -> Tensor:
        """``KL(student || teacher)`` over the vocabulary, ``[B, T]``, current weights."""
        with self._within_memory("a reading of both views"):
            return score_divergence(
                self.policy,
                self.teacher_policy,
                prompts,
                teacher_prompts,
                responses,
                self.temperature,
                self.token_budget,
                self._count("score", self.policy),
            )

    def training_step(self, update: Update, index: int) -> None:
        with self._within_memory("an update"):
            self._update(update)

    def _update(self, update: Update) -> None:
        weights_BT = self.objective.aggregation(update.counted_BT, update.advantages_BT.dtype)
        # Without credit a response adds exactly 0 to loss and gradient; its tokens stay in weights_BT.
        credited_BT = (update.advantages_BT != 0) | (update.distillation_BT != 0)
        active = credited_BT.any(1).nonzero().flatten().tolist()

        optimizer: Any = self.optimizers()
        optimizer.zero_grad(set_to_none=False)
        for parameter in self.policy.parameters():  # not None: without credit AdamW still coasts
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        before = self.work["update"].tokens
        sums = torch.zeros(len(SUMS), dtype=torch.float64, device=self.device)
        for rows in passes(update.prompts, update.responses, active, self.token_budget):
            found = self._accumulate(update, weights_BT, rows)
            sums += torch.stack([found.get(name, sums.new_zeros(())).double() for name in SUMS])
        self.update_tokens.append(self.work["update"].tokens - before)
        counts = torch.tensor([len(active), len(update.responses)], dtype=torch.float64)
        *summed, kept, rollouts = distributed.all_reduce_sum(
            torch.cat([sums.cpu(), counts])
        ).tolist()
        totals = dict(zip(SUMS, summed, strict=True))

        parameters = self.policy.parameters()
        clipped = torch.nn.utils.clip_grad_norm_(parameters, self.optimization.max_grad_norm)
        norm, loss = (
            float(distributed.full_tensor(clipped)),
            totals["surrogate"] + totals["distillation"],
        )
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise NonFiniteError(
                f"the loss ({loss}) or the gradient norm ({norm}) of rollout step "
                f"{self.current_epoch} is not finite; the last checkpoint holds the weights before it"
            )
        optimizer.step()
        scheduler: Any = self.lr_schedulers()
        self.update_metrics.append(
            {
                **self.objective.metrics(totals),
                "update/grad_norm": norm,
                "update/learning_rate": scheduler.get_last_lr()[0],
                "update/skipped_rollouts": 1 - kept / rollouts,
            }
        )

    def _accumulate(self, update: Update, weights_BT: Tensor, rows: list[int]) -> dict[str, Tensor]:
        """Add a micro-batch's gradient; returns sums over its tokens."""
        batch = micro_batch(update, weights_BT, rows, self.device)
        distils = self.objective.divergence is not None  # the same on every rank
        taught_MH = self._teacher_hidden(update, batch.distilled_rows) if distils else None
        teacher = self.teacher_policy if distils else self.policy

        def work() -> tuple[Tensor, dict[str, Tensor]]:
            hidden_NH = response_hidden(
                self.policy,
                [update.prompts[row] for row in rows],
                [update.responses[row] for row in rows],
                self._count("update", self.policy, backward=True),
            )
            head_VH = head_weight(self.policy)
            loss = hidden_NH[:0].sum()  # without rows the layers' backward runs all the same
            sums: dict[str, Tensor] = {}
            has_advantages = bool((batch.advantages_N != 0).any())
            if not (has_advantages or batch.distilled_rows):
                # FSDP2 reduces only what has a gradient, and an untied head would have none on this rank
                loss = loss + head_VH[:0].sum()
            if has_advantages:
                part, sums = self._surrogate(update, batch, hidden_NH, head_VH)
                loss = loss + part
            if taught_MH is not None and batch.distilled_rows:
                heads = head_VH, head_weight(teacher).detach()
                part, more = self._distillation(batch, hidden_NH, taught_MH, heads)
                loss, sums = loss + part, sums | more
            return loss, sums

        loss, sums = both_unsharded(self.policy, teacher, work)
        self.manual_backward(loss)
        if teacher is not self.policy:
            released(teacher)
        return sums

    def _surrogate(
        self, update: Update, batch: MicroBatch, hidden_NH: Tensor, head_VH: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The surrogate and its sums. What is read of the student view for the first time is kept."""
        credited_N = batch.credited_N
        is_first = not bool(batch.student_scored_N[credited_N].all())
        logprobs_n, entropy_n = token_logprobs(
            hidden_NH[credited_N], head_VH, batch.ids_N[credited_N], self.temperature, is_first
        )
        if entropy_n is not None:
            self.readings.append(first_reading(update, batch, logprobs_n, entropy_n))
        return self.objective.surrogate(batch, logprobs_n)

    def _distillation(
        self,
        batch: MicroBatch,
        hidden_NH: Tensor,
        taught_MH: Tensor,
        heads: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The distillation loss and its sums.

        ``taught_MH`` are the teacher's hidden states of all tokens of ``batch.distilled_rows``;
        ``heads`` are the student's and the teacher's.
        """
        divergence = self.objective.divergence
        assert divergence is not None, "credit distills and names no divergence"
        distilled_N = batch.distilled_N
        divergence_n, logprobs_n = distilled_tokens(
            hidden_NH[distilled_N],
            heads[0],
            taught_MH[distilled_N[batch.of_responses(distilled_N)]],
            heads[1],
            batch.ids_N[distilled_N],
            self.temperature,
            divergence,
        )
        assert logprobs_n is not None
        return self.objective.distillation(batch, divergence_n, logprobs_n)

    def _teacher_hidden(self, update: Update, rows: list[int]) -> Tensor:
        """Hidden states ``[M, H]`` of these rows in the teacher view."""
        prompts = [prompt for row in rows if (prompt := update.teacher_prompts[row]) is not None]
        assert len(prompts) == len(rows), "a rollout without a context is distilled"
        responses = [update.responses[row] for row in rows]
        count = self._count("update", self.teacher_policy)
        return teacher_hidden(self.teacher_policy, prompts, responses, self.token_budget, count)

    def _within_memory(self, doing: str) -> AbstractContextManager[None]:
        """Memory that is full ends the run, with the settings that this run could lower."""
        cures = [f"a training.token_budget below {self.token_budget}"]
        if not self.policy.is_gradient_checkpointing:
            cures.append("model.gradient_checkpointing=true")
        if self.device.type == "cuda" and self.optimization.moments != "host":
            cures.append("training.optimization.moments=host")
        cures.append("more processes with strategy=fsdp")
        return within_memory(f"{doing} of rollout step {self.current_epoch}", cures)

    def _count(self, stage: str, policy: PreTrainedModel, backward: bool = False) -> Seen:
        """Adds the packs that a stage reads to its work."""
        shape = Shape.of(policy.config)

        def seen(packed: Packed) -> None:
            # a GPU's kernel for sequences of uneven length pads nothing
            padding = packed.attention_padding if self.device.type == "cpu" else 0.0
            slots = len(packed.sequence_U) / (1 - padding)
            flops = shape.forward(packed.tokens, len(packed.predicting_N), packed.attended_pairs)
            self.work[stage] += Work(
                flops * (1 + BACKWARD if backward else 1),
                packed.tokens,
                attention_slots=slots,
                padded_slots=slots * padding,
            )

        return seen

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        released(self.teacher_policy)
        self.teacher.follow(self.teacher_policy, self.policy, self.current_epoch + 1)

    def configure_optimizers(self) -> Any:
        return self.optimization.of(self.policy)
