"""The rollout callback: at the start of each epoch one rollout step, from weight sync to updates."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch

from rlrt.batch import Problem, Rollout
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
from rlrt.training.scoring import scored_batch, teacher_views
from rlrt.training.updates import split_updates

PROBE_PROMPTS = 4
PROBE_TOKENS = 32


@dataclass(frozen=True)
class RolloutSettings:
    """What a rollout step samples. Lengths are in tokens; ``seed`` is the run's."""

    seed: int
    rollouts_per_problem: int
    problems_per_update: int
    temperature: float
    max_response_tokens: int
    max_model_tokens: int  # of either view, prompt and response together
    record_rollouts: bool = True

    def __post_init__(self) -> None:
        if self.rollouts_per_problem < 1:
            raise ValueError(
                f"training.rollouts_per_problem is {self.rollouts_per_problem}, it must be >= 1"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"training.temperature is {self.temperature}, it must be above 0: greedy responses "
                "of a group are all the same"
            )
        Sampling(self.max_response_tokens)  # refuses a length out of range


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
        rollouts = self._sample(problems, step)
        with self._clock("score"):
            reads_teacher_B = self.credit.reads_teacher(
                torch.tensor([rollout.reward for rollout in rollouts]),
                torch.tensor([rollout.group for rollout in rollouts]),
                step,
            )
            teacher = teacher_views(
                rollouts,
                self._demonstrations(rollouts),
                reads_teacher_B,
                self.prompts,
                self.settings.max_model_tokens,
            )
            batch = scored_batch(rollouts, teacher, module.score)
        credit = self.credit(batch, step)
        data.updates = split_updates(rollouts, batch, credit, self.settings.problems_per_update)
        if self.settings.record_rollouts:
            texts = self.prompts.tokenizer.batch_decode([list(r.prompt_ids) for r in rollouts])
            write_records(self.folder / "rollouts", step, rollouts, texts, batch, credit)
        self.row |= rollout_metrics(rollouts, batch, teacher, credit)
        self.row["rollout/tokens_per_s"] = self.row["rollout/tokens"] / self.row["time/rollout_s"]
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

    def _sample(self, problems: list[Problem], step: int) -> list[Rollout]:
        """K judged rollouts of every problem, group after group."""
        chosen, samples = self.settings, self.settings.rollouts_per_problem
        rows = [(group, sample) for group in range(len(problems)) for sample in range(samples)]
        group_ids = [self.prompts.student_ids(problem.question) for problem in problems]
        with self._clock("rollout"):
            responses = self.engine.sample(
                [group_ids[group] for group, _ in rows],
                [
                    derive_seed(chosen.seed, "rollout", step, group, sample)
                    for group, sample in rows
                ],
                Sampling(chosen.max_response_tokens, chosen.temperature),
            )
            self.engine.sleep()
        with self._clock("reward"):
            judged = self.judge(responses, [problems[group].answer for group, _ in rows])
        return [
            Rollout(
                problem=problems[group],
                group=group,
                sample=sample,
                prompt_ids=group_ids[group],
                response=response,
                text=seen.text,
                verdict=seen.verdict,
                reward=seen.reward,
            )
            for (group, sample), response, seen in zip(rows, responses, judged, strict=True)
        ]

    def _demonstrations(self, rollouts: list[Rollout]) -> list[Demonstration | None]:
        return [None] * len(rollouts) if self.context is None else self.context(rollouts)

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.row[f"time/{stage}_s"] = time.perf_counter() - began
