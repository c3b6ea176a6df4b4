"""The rollout callback: at the start of each epoch one rollout step, from weight sync to updates."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from rlrt import distributed
from rlrt.batch import Credit, Problem, Rollout, ScoredBatch
from rlrt.context.context import Context, Demonstration
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemDataModule
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec, Sampling, engine_weights
from rlrt.engine.probe import sync_and_prove
from rlrt.records import prompt_texts, write_records
from rlrt.reward.judge import Judge
from rlrt.training.checkpoint import Checkpoints
from rlrt.training.evaluator import Evaluator
from rlrt.training.loggers import log_evaluation
from rlrt.training.metrics import StepTable, rollout_metrics
from rlrt.training.module import NonFiniteError, PolicyModule, UpdateOutcome
from rlrt.training.performance import (
    Work,
    forget_peak_memory,
    idle_share,
    peak_flops,
    peak_memory,
    performance,
)
from rlrt.training.sampler import RolloutSettings, Sampled, Sampler, balanced
from rlrt.training.scoring import (
    TeacherPrompts,
    completed,
    has_prompt,
    outcomes_of,
    render_teacher_prompts,
    rows_to_score,
    scored_batch,
)
from rlrt.training.updates import (
    Reading,
    Update,
    scaled_within_updates,
    split_updates,
    without_rows,
)


@dataclass(frozen=True)
class Step:
    """A rollout step between its sampling and the end of its updates; of this rank's groups."""

    sampled: Sampled
    batch: ScoredBatch
    prompt_counts: Counter[str]  # of the teacher prompts
    credit: Credit
    scoring: Work


class RolloutCallback(L.Callback):
    """Fills each epoch with fresh rollouts; its ``row`` holds the metrics of the step.

    ``updates`` is the list that the data module hands out one by one: it gets those of each step.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        engine: Engine,
        engine_spec: EngineSpec,
        prompts: Prompts,
        judge: Judge,
        credit: CreditAssigner,
        context: Context | None,
        evaluator: Evaluator,
        updates: list[Update],
        folder: Path,
        first_step: int,
    ) -> None:
        self.settings = settings
        self.engine, self.engine_spec = engine, engine_spec
        self.prompts = prompts
        self.judge = judge
        self.credit = credit
        self.context = context
        self.evaluator = evaluator
        self.sampler = Sampler(settings, engine, prompts, judge)
        self.folder = folder
        self.evaluations = StepTable(folder / "evaluation.csv", first_step)
        self.updates = updates
        self.row: dict[str, float] = {}
        self.step: Step | None = None  # the current one, as soon as it is scored
        self.outcomes: list[UpdateOutcome] = []  # of the updates made in it
        self.update_works: list[Work] = []
        self._started = False  # whether the engine is there

    @property
    def current_rollouts(self) -> list[Rollout]:
        """The rollouts of the current step; none before it has sampled."""
        return self.step.sampled.rollouts if self.step is not None else []

    def on_train_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        # no earlier: PyTorch restores an optimizer with the room of all gradients, which on a card is
        # the engine's once it has started
        self.start_engine(module)

    def start_engine(self, module: PolicyModule) -> None:
        """Start the engine where it has not: a run that has no step left begins none of Lightning's."""
        if not self._started:
            self.engine.start(module.policy, self.engine_spec)
            self._started = True

    def on_train_epoch_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        step, data = trainer.current_epoch, trainer.datamodule  # type: ignore[attr-defined]
        problems, per_update = data.problems_of_step(step), self.settings.problems_per_update
        own = distributed.groups_of_rank(len(problems), per_update)
        groups = [(group, problems[group]) for group in own]
        self.row, self.step, self.outcomes, self.update_works = {}, None, [], []
        checkpoints = trainer.checkpoint_callback
        if isinstance(checkpoints, Checkpoints) and checkpoints.seconds is not None:
            self.row["time/checkpoint_s"] = checkpoints.seconds  # of the step before
        self._step_began = time.perf_counter()
        forget_peak_memory(module.device)
        self.sync(module, step, [problem for _, problem in groups])
        if self.evaluator.due(step):
            self.evaluate(module, data, step)
        sampled = self.sampler(groups, step, data.spare_problems(step), self._clock)
        self.engine.sleep()
        module.take_work()  # the probe's is no part of the step's scoring
        with self._clock("wait"):  # for the rank that samples longest
            distributed.barrier()
        rollouts = balanced(sampled.rollouts, self.credit, step, per_update)
        sampled = replace(sampled, rollouts=rollouts)
        teacher_prompts, counts = self._teacher_prompts(rollouts, step)
        batch = self._score(module, rollouts, teacher_prompts, step)
        credit = self._credit(rollouts, batch, step)
        self.updates[:] = split_updates(rollouts, teacher_prompts, batch, credit, per_update)
        self.step = Step(sampled, batch, counts, credit, module.take_work())
        self._updates_began = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: PolicyModule,  # type: ignore[override]
        outputs: Any,
        batch: Update,
        batch_idx: int,
    ) -> None:
        self.outcomes.append(outputs)
        self.update_works.append(module.take_work())

    def on_train_epoch_end(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        """Complete the step's row and hand it to the loggers: the one place where metrics are logged."""
        self.row["time/update_s"] = time.perf_counter() - self._updates_began
        updates = [outcome["metrics"] for outcome in self.outcomes]
        made, due = len(updates), len(self.updates)
        assert made == due, f"{made} of {due} updates were made"
        self.row |= {name: sum(u[name] for u in updates) / made for name in updates[0]}
        with self._clock("record"):
            step, batch = self.step, self._record(trainer.current_epoch)
        assert step is not None
        scored_first_B = step.batch.student_scored_B
        self.row |= rollout_metrics(
            step.sampled, batch, step.credit, scored_first_B, step.prompt_counts
        )
        self.row |= self._times(trainer)
        tokens = self.row["rollout/tokens"] + self.row["rollout/discarded_tokens"]
        self.row["rollout/tokens_per_s"] = tokens / self.row["time/rollout_s"]
        works = {"score": [step.scoring], "update": self.update_works}
        stages = {
            stage: sum(each, Work(seconds=self.row[f"time/{stage}_s"]))
            for stage, each in works.items()
        }
        peak = peak_flops(module.device, self.engine_spec.dtype)
        self.row |= performance(stages, peak) | peak_memory(module.device)
        for stage, each in works.items():
            self.row[f"{stage}/idle_share"] = idle_share([work.tokens for work in each])
        for logger in trainer.loggers:
            logger.log_metrics(self.row, step=trainer.current_epoch)

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """The rollouts that ended a run are kept: the same on every rank, so all write them together."""
        if isinstance(exception, NonFiniteError) and isinstance(module, PolicyModule):
            self._record(trainer.current_epoch, exception.readings)

    def sync(self, module: PolicyModule, step: int, problems: list[Problem]) -> None:
        """Give the engine the policy's weights and prove that it serves them."""
        prompts, dtype = self.prompts, self.engine_spec.dtype
        module.policy.zero_grad(set_to_none=True)  # their memory is the engine's while it samples
        self.row |= sync_and_prove(
            self.engine,
            lambda: engine_weights(module.policy, dtype),
            lambda prompts, responses: module.score(prompts, responses)[0],
            (prompts.student_ids(problem.question, problem.preceding) for problem in problems),
            Sampling(self.settings.max_response_tokens, self.settings.temperature),
            self.settings.seed,
            step,
            dtype,
        )

    def evaluate(self, module: PolicyModule, data: ProblemDataModule, step: int) -> None:
        """Evaluate the weights that the engine serves; ``step`` rollout steps made them."""
        with self._clock("evaluation"):
            problems = data.held_out_set.problems[: self.evaluator.max_problems]
            metrics, completions = self.evaluator(
                self.engine,
                problems,
                [
                    self.prompts.student_ids(problem.question, problem.preceding)
                    for problem in problems
                ],
                self.judge,
                self.settings.max_response_tokens,
                self.settings.seed,
            )
        self.evaluations.append({"step": step, "problems": len(problems), **metrics})
        log_evaluation(module.trainer.loggers, metrics, completions, step)

    def _teacher_prompts(
        self, rollouts: list[Rollout], step: int
    ) -> tuple[TeacherPrompts, Counter[str]]:
        with self._clock("score"):
            outcomes = outcomes_of(rollouts)
            used_B = self.credit.reads_teacher(outcomes, step) | self.credit.distills(
                outcomes, step
            )
            demonstrations: list[Demonstration | None] = [None] * len(rollouts)
            if self.context is not None and used_B.any():
                demonstrations = self.context(rollouts, step)
            return render_teacher_prompts(
                rollouts, demonstrations, used_B, self.prompts, self.settings.max_model_tokens
            )

    def _score(
        self,
        module: PolicyModule,
        rollouts: list[Rollout],
        teacher_prompts: TeacherPrompts,
        step: int,
    ) -> ScoredBatch:
        """Both views, each only where the credit or a later update has a use for it."""
        assigner, settings = self.credit, self.settings
        with self._clock("score"):
            outcomes = outcomes_of(rollouts)
            student_B, teacher_B = rows_to_score(
                assigner, outcomes, has_prompt(teacher_prompts), step, settings.problems_per_update
            )
            if settings.score_all:
                student_B = torch.ones_like(student_B)
            divergence = assigner.reads_divergence
            return scored_batch(
                rollouts, outcomes, teacher_prompts, student_B, teacher_B, divergence, module
            )

    def _credit(self, rollouts: list[Rollout], batch: ScoredBatch, step: int) -> Credit:
        credit = self.credit(batch, step)
        if self.settings.mask_truncated:
            truncated_B = torch.tensor([rollout.response.truncated for rollout in rollouts])
            credit = without_rows(batch, credit, truncated_B)
        return scaled_within_updates(batch, credit, self.settings.problems_per_update)

    def _record(self, step: int, last: Sequence[Reading] = ()) -> ScoredBatch:
        """Write the step to disk; returns its batch with what the updates have read of it."""
        assert self.step is not None
        rollouts = self.step.sampled.rollouts
        readings = [reading for done in self.outcomes for reading in done["readings"]]
        batch = completed(self.step.batch, [*readings, *last])
        if self.settings.record_rollouts:
            texts = prompt_texts(rollouts, self.prompts.tokenizer)
            folder = self.folder / "rollouts"
            write_records(folder, step, rollouts, texts, batch, self.step.credit)
        return batch

    def _times(self, trainer: L.Trainer) -> dict[str, float]:
        """Seconds of each stage, of the rank that took longest; collective."""
        self.row["time/step_s"] = time.perf_counter() - self._step_began
        self.row["time/step_s"] -= self.row.get("time/evaluation_s", 0.0)
        spent = {name: value for name, value in self.row.items() if name.startswith("time/")}
        longest = distributed.all_reduce_max(
            torch.tensor(list(spent.values()), dtype=torch.float64)
        )
        return dict(zip(spent, longest.tolist(), strict=True))

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        name = f"time/{stage}_s"  # a stage may come several times in a step
        self.row[name] = self.row.get(name, 0.0) + time.perf_counter() - began
