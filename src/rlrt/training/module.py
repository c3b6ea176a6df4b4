"""The LightningModule: holds the policy, scores both views, and makes the updates; its sharded strategy."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, TypedDict

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import PreTrainedModel

from rlrt import distributed
from rlrt.batch import Ids
from rlrt.errors import RunStoppedError
from rlrt.loss.objective import SUMS, MicroBatch, Objective
from rlrt.model.policy import (
    BothViews,
    OtherView,
    Policy,
    packed_rows,
    passes,
    response_states,
    score_both_views,
    score_responses,
)
from rlrt.model.sharding import fill, is_hollow, is_sharded, keep_in, shard
from rlrt.model.teacher import Teacher
from rlrt.training.optimization import Optimization
from rlrt.training.performance import Work, work_of_pack
from rlrt.training.updates import Reading, Update, first_reading, micro_batch

GIB = 2**30
# What PyTorch says of a GPU, and of the host: of that no more than the bytes it asked for.
_REQUESTED = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")
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


def _figures(message: str) -> str:
    """What was asked and what was free, where the error says it."""
    requested, free = _REQUESTED.search(message), _FREE.search(message)
    figures = []
    if requested is not None:
        number, unit = requested.groups()
        amount = f"{float(number) / GIB:.2f} GiB" if unit == "bytes" else f"{number} {unit}"
        figures.append(f"{amount} asked for")
    if free is not None:
        figures.append(f"{free[1]} free")
    elif torch.cuda.is_available():
        figures.append(f"{torch.cuda.mem_get_info()[0] / GIB:.2f} GiB free")
    return f" ({', '.join(figures)})" if figures else ""


class NonFiniteError(RunStoppedError):
    """A loss or gradient is not a number; the weights are still those before the update.

    ``readings`` are what the update has read all the same, for the records of the step.
    """

    def __init__(self, sentence: str, readings: Sequence[Reading] = ()) -> None:
        super().__init__(sentence)
        self.readings = readings


class UpdateOutcome(TypedDict):
    """What a training step returns; Lightning hands it to the callbacks and takes a dict alone."""

    metrics: dict[str, float]  # true over all ranks
    readings: list[Reading]


# Long: a rank waits for the slowest to have sampled. A rank that died is noticed by other means.
COLLECTIVE_TIMEOUT = timedelta(hours=12)


class FullySharded(ModelParallelStrategy):
    """Parameters, gradients and optimizer state spread over all ranks; a layer is gathered when used.

    One rank is enough: its float32 weights then are cast to bfloat16 layer by layer, as with several.
    ``sharded_checkpoints``: every rank writes its own part, into a folder; else rank 0 writes one file.
    Either kind of checkpoint continues on any number of ranks.
    """

    def __init__(self, sharded_checkpoints: bool = True) -> None:
        super().__init__(
            save_distributed_checkpoint=sharded_checkpoints,
            # small tensors of the host are summed too
            process_group_backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            timeout=COLLECTIVE_TIMEOUT,
        )

    @cached_property
    def ranks_mesh(self) -> DeviceMesh:
        """All ranks in one row."""
        return init_device_mesh(self.root_device.type, (self.world_size,))

    @property
    def precision_plugin(self) -> Precision:
        """What Lightning wraps every step in: nothing."""
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        self._precision_plugin = Gathered() if isinstance(plugin, MixedPrecision) else plugin

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of gathered layers; the shards are float32."""
        return torch.bfloat16 if isinstance(self.precision_plugin, Gathered) else torch.float32


class Gathered(Precision):
    """bf16-mixed by layers that are gathered in bfloat16: autocast would raise parts to float32 again."""

    precision = "bf16-mixed"


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
        self.policy = Policy(policy)
        self.teacher = teacher
        weights = teacher.start(policy)
        teacher_policy = self.policy if weights is policy else Policy(weights)
        if teacher.changes:
            self.teacher_weights = teacher_policy  # a part of this module, so checkpoints hold it
        self._teacher = (teacher_policy,)  # in a tuple it is none
        self._sources = (source, teacher.source(source))  # neither are these
        self.objective = objective
        self.optimization = optimization
        self.temperature = temperature
        self.token_budget = token_budget
        self._work = Work()  # of this rank, since it was last taken
        for reader in {self.policy, teacher_policy}:
            reader.register_forward_pre_hook(self._count_work)

    @property
    def teacher_policy(self) -> Policy:
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

    def score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies ``[B, T]`` of responses in the student view, current weights."""
        return self._score(self.policy, prompts, responses)

    def score_teacher(
        self, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]:
        """The same in the teacher view; ``prompts`` hold the privileged context."""
        return self._score(self.teacher_policy, prompts, responses)

    def _score(
        self, policy: Policy, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]:
        with self._within_memory("a reading of responses"):
            return score_responses(policy, prompts, responses, self.temperature, self.token_budget)

    def score_both_views(
        self,
        prompts: Sequence[Ids],
        teacher_prompts: Sequence[Ids],
        responses: Sequence[Ids],
    ) -> BothViews:
        """Both views and ``KL(student || teacher)`` over the vocabulary, each view read once."""
        with self._within_memory("a reading of both views"):
            return score_both_views(
                self.policy,
                self.teacher_policy,
                prompts,
                teacher_prompts,
                responses,
                self.temperature,
                self.token_budget,
            )

    def take_work(self) -> Work:
        """What the policy's and the teacher's passes since the last call came to, on this rank.

        Counted from 0 each time: a difference of running sums would be rounded by all steps before, and
        a resumed run's metrics would differ in the last digit.
        """
        work, self._work = self._work, Work()
        return work

    def _count_work(self, policy: Any, inputs: tuple[Any, ...]) -> None:
        packed = inputs[0]
        if packed is not None:
            backward = torch.is_grad_enabled()
            self._work += work_of_pack(packed, policy.config, self.device, backward)

    def training_step(self, update: Update, index: int) -> UpdateOutcome:
        weights_BT = self.objective.aggregation(update.counted_BT, update.advantages_BT.dtype)
        # Without credit a response adds exactly 0 to loss and gradient; its tokens stay in weights_BT,
        # whose denominator is that of the whole update, whatever micro-batches and ranks it is cut into.
        credited_BT = (update.advantages_BT != 0) | (update.distillation_BT != 0)
        active = credited_BT.any(1).nonzero().flatten().tolist()
        sums = torch.zeros(len(SUMS), dtype=torch.float64, device=self.device)
        readings: list[Reading] = []
        with self._within_memory("an update"):
            self._zero_gradients()
            for rows in passes(update.prompts, update.responses, active, self.token_budget):
                sums += self._accumulate(update, weights_BT, rows, readings)
            # one message for all sums, in float64: divided once, by what all ranks have together
            counts = torch.tensor([len(active), len(update.responses)], dtype=torch.float64)
            own = torch.cat([sums.cpu(), counts])
            *summed, computed, rollouts = distributed.all_reduce_sum(own).tolist()
            totals = dict(zip(SUMS, summed, strict=True))
            norm = self._clipped_norm(totals["surrogate"] + totals["distillation"], readings)
            optimizer: Any = self.optimizers()
            optimizer.step()
        scheduler: Any = self.lr_schedulers()
        metrics = {
            **self.objective.metrics(totals),
            "update/grad_norm": norm,
            "update/learning_rate": scheduler.get_last_lr()[0],
            "update/skipped_rollouts": 1 - computed / rollouts,
        }
        return {"metrics": metrics, "readings": readings}

    def _zero_gradients(self) -> None:
        """Zeros for every parameter, not None: AdamW coasts on where nothing has credit, and the head's
        backward adds to a gradient that is there in place.
        """
        optimizer: Any = self.optimizers()
        optimizer.zero_grad(set_to_none=False)
        for parameter in self.policy.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _clipped_norm(self, loss: float, readings: list[Reading]) -> float:
        """Clip the gradient and return its norm before that; NonFiniteError ahead of the weights' change."""
        parameters = self.policy.parameters()
        clipped = torch.nn.utils.clip_grad_norm_(parameters, self.optimization.max_grad_norm)
        norm = float(distributed.full_tensor(clipped))
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise NonFiniteError(
                f"the loss ({loss}) or the gradient norm ({norm}) of rollout step "
                f"{self.current_epoch} is not finite; the last checkpoint holds the weights before it",
                readings,
            )
        return norm

    def _accumulate(
        self, update: Update, weights_BT: Tensor, rows: list[int], readings: list[Reading]
    ) -> Tensor:
        """Add a micro-batch's gradient, and its first reading to ``readings``; returns its ``SUMS``."""
        batch = micro_batch(update, weights_BT, rows, self.device)
        other = self._teacher_view(update, batch)
        packed = packed_rows(update.prompts, update.responses, rows)
        credited_N = batch.credited_N
        # The first update of a step starts from the student's own weights: what it computes of rows that
        # nobody has scored is their student view, and the step's records and metrics want it.
        is_first = not bool(batch.student_scored_N[credited_N].all())
        values = self.policy(packed, batch.ids_N, self.temperature, credited_N, is_first, other)
        loss = values.anchor
        sums: dict[str, Tensor] = {}
        if values.logprobs_n is not None:
            surrogate, sums = self.objective.surrogate(batch, values.logprobs_n)
            loss = loss + surrogate
        if values.entropy_n is not None:
            readings.append(first_reading(update, batch, values.logprobs_n, values.entropy_n))
        if values.divergence_m is not None:
            distillation, more = self.objective.distillation(
                batch, values.divergence_m, values.compared_logprobs_m
            )
            loss, sums = loss + distillation, sums | more
        self.manual_backward(loss)
        zero = loss.detach().new_zeros(())
        return torch.stack([sums.get(name, zero).double() for name in SUMS])

    def _teacher_view(self, update: Update, batch: MicroBatch) -> OtherView | None:
        """What a distilling update compares with: the teacher at all tokens that are distilled.

        None where none is. Collective wherever the objective distills, whatever this rank's rows are.
        """
        divergence, teacher = self.objective.divergence, self.teacher_policy
        if divergence is None:
            return None
        rows = batch.distilled_rows
        prompts = [prompt for row in rows if (prompt := update.teacher_prompts[row]) is not None]
        assert len(prompts) == len(rows), "a rollout without a context is distilled"
        responses = [update.responses[row] for row in rows]
        hidden_MG = response_states(teacher, prompts, responses, self.token_budget)
        head_VG = None if teacher is self.policy else teacher.gathered_head()
        if not rows:
            return None
        distilled_N = batch.distilled_N
        hidden_mG = hidden_MG[distilled_N[batch.of_responses(distilled_N)]]
        return OtherView(hidden_mG, head_VG, distilled_N, divergence)

    def _within_memory(self, doing: str) -> AbstractContextManager[None]:
        """Memory that is full ends the run, with the settings that this run could lower."""
        cures = [f"a training.token_budget below {self.token_budget}"]
        if not self.policy.causal_lm.is_gradient_checkpointing:
            cures.append("model.gradient_checkpointing=true")
        if self.device.type == "cuda" and self.optimization.moments != "host":
            cures.append("training.optimization.moments=host")
        cures.append("more processes with strategy=fsdp")
        return within_memory(f"{doing} of rollout step {self.current_epoch}", cures)

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        self.teacher.follow(self.teacher_policy, self.policy, self.current_epoch + 1)

    def configure_optimizers(self) -> Any:
        return self.optimization.build(self.policy)
