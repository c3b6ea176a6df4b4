"""The rollout callback: at the start of each epoch one rollout step, from weight sync to updates."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch

from rlrt.batch import Problem, Rollout, ScoredBatch
from rlrt.context.context import Context, Demonstration
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemDataModule
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec, Sampling
from rlrt.engine.probe import logprob_gap, require_fresh
from rlrt.engine.weights import engine_weights
from rlrt.evaluation.evaluator import Evaluator
from rlrt.evaluation.judging import Judge
from rlrt.functional.seeds import derive_seed
from rlrt.training.files import StepTable
from rlrt.training.module import PolicyModule
from rlrt.training.records import write_records
from rlrt.training.rollout_metrics import rollout_metrics
from rlrt.training.sampler import RolloutSettings, Sampler
from rlrt.training.scoring import TeacherViews, outcomes_of, scored_batch, teacher_views
from rlrt.training.updates import scaled_within_updates, split_updates, without_rows

PROBE_PROMPTS = 4
PROBE_TOKENS = 32


@dataclass(frozen=True)
class RolloutParts:
    """The exchangeable parts of a rollout step."""

    engine: Engine
    engine_spec: EngineSpec
    prompts: Prompts
    judge: Judge
    credit: CreditAssigner
    context: Context | None
    evaluator: Evaluator


class RolloutCallback(L.Callback):
    """Fills each epoch with fresh rollouts; its ``row`` holds the metrics of the step."""

    def __init__(
        self,
        settings: RolloutSettings,
        parts: RolloutParts,
        folder: Path,
        first_step: int,
    ) -> None:
        self.settings = settings
        self.engine = parts.engine
        self.engine_spec = parts.engine_spec
        self.prompts = parts.prompts
        self.judge = parts.judge
        self.sampler = Sampler(settings, parts.engine, parts.prompts, parts.judge)
        self.credit = parts.credit
        self.context = parts.context
        self.evaluator = parts.evaluator
        self.folder = folder
        self.evaluations = StepTable(folder / "evaluation.csv", first_step)
        self.row: dict[str, float] = {}
        self.rollouts: list[Rollout] = []

    def on_fit_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        self.engine.start(module.policy, self.engine_spec)

    def on_train_epoch_start(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        step, data = trainer.current_epoch, trainer.datamodule  # type: ignore[attr-defined]
        problems = data.problems_of_step(step)
        self.row = {}
        self._step_began = time.perf_counter()
        module.policy.zero_grad(set_to_none=True)  # their memory is the engine's while it samples
        self.sync(module, step, problems)
        if self.evaluator.due(step):
            self.evaluate(module, data, step)
        sampled = self.sampler(problems, step, data.spare_problems(step), self._clock)
        self.engine.sleep()
        rollouts = sampled.rollouts
        batch, teacher = self._score(module, rollouts, step)
        credit = self.credit(batch, step)
        if self.settings.mask_truncated:
            truncated_B = torch.tensor([rollout.response.truncated for rollout in rollouts])
            credit = without_rows(batch, credit, truncated_B)
        per_update = self.settings.problems_per_update
        credit = scaled_within_updates(batch, credit, per_update)
        data.updates = split_updates(rollouts, teacher.prompts, batch, credit, per_update)
        if self.settings.record_rollouts:
            texts = self.prompts.tokenizer.batch_decode([list(r.prompt_ids) for r in rollouts])
            write_records(self.folder / "rollouts", step, rollouts, texts, batch, credit)
        self.row |= rollout_metrics(sampled, batch, teacher, credit)
        tokens = self.row["rollout/tokens"] + sampled.discarded_tokens
        self.row["rollout/tokens_per_s"] = tokens / self.row["time/rollout_s"]
        self.rollouts = rollouts
        module.update_metrics = []
        self._updates_began = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        """Complete the step's row and hand it to the loggers: the one place where metrics are logged."""
        updates = module.update_metrics
        self.row |= {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        self.row["time/update_s"] = time.perf_counter() - self._updates_began
        spent = time.perf_counter() - self._step_began
        self.row["time/step_s"] = spent - self.row.get("time/evaluation_s", 0.0)
        for logger in trainer.loggers:
            logger.log_metrics(self.row, step=trainer.current_epoch)

    def sync(self, module: PolicyModule, step: int, problems: list[Problem]) -> None:
        """Give the engine the policy's weights and prove that it serves them."""
        with self._clock("sync"):
            self.engine.sync(engine_weights(module.policy, self.engine_spec.dtype))
        with self._clock("probe"):
            probed = [self.prompts.student_ids(p.question) for p in problems[:PROBE_PROMPTS]]
            gap = logprob_gap(
                self.engine,
                lambda prompts, responses: module.score(prompts, responses)[0],
                probed,
                [derive_seed(self.settings.seed, "probe", step, i) for i in range(len(probed))],
                Sampling(
                    min(PROBE_TOKENS, self.settings.max_response_tokens), self.settings.temperature
                ),
            )
        self.row |= {"sync/logprob_gap": gap.max, "sync/logprob_gap_mean": gap.mean}
        require_fresh(gap, self.engine_spec.dtype, self.engine.max_logprob_gap, step)

    def evaluate(self, module: PolicyModule, data: ProblemDataModule, step: int) -> None:
        """Evaluate the weights that the engine serves; ``step`` rollout steps made them."""
        with self._clock("evaluation"):
            problems = data.held_out_set.problems[: self.evaluator.max_problems]
            measured = self.evaluator(
                self.engine,
                problems,
                [self.prompts.student_ids(problem.question) for problem in problems],
                self.judge,
                self.settings.max_response_tokens,
                self.settings.seed,
            )
        self.evaluations.append({"step": step, "problems": len(problems), **measured})

    def _score(
        self, module: PolicyModule, rollouts: list[Rollout], step: int
    ) -> tuple[ScoredBatch, TeacherViews]:
        """Both views, each only where the credit has a use for it."""
        with self._clock("score"):
            outcomes = outcomes_of(rollouts)
            reads_teacher_B = self.credit.reads_teacher(outcomes, step)
            used_B = reads_teacher_B | self.credit.distils(outcomes, step)
            shown: list[Demonstration | None] = [None] * len(rollouts)
            if self.context is not None and used_B.any():
                shown = self.context(rollouts, step)
            teacher = teacher_views(
                rollouts, shown, used_B, self.prompts, self.settings.max_model_tokens
            )
            batch = scored_batch(
                rollouts, outcomes, teacher, reads_teacher_B, self.credit.reads_divergence, module
            )
        return batch, teacher

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        name = f"time/{stage}_s"  # a stage may come several times in a step
        self.row[name] = self.row.get(name, 0.0) + time.perf_counter() - began
