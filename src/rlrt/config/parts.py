"""The parts of a run from its settings: all that can be refused before anything slow begins."""

from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from rlrt.batch import ProblemSet
from rlrt.config.benchmarks import build_source
from rlrt.config.configuration import build, checked
from rlrt.config.console import say
from rlrt.config.settings import (
    CheckpointSettings,
    Model,
    PromptSettings,
    RunSettings,
    Training,
)
from rlrt.config.trainer import check_ranks, check_trainer
from rlrt.config.types import require_types
from rlrt.context.context import Context
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemSource, fitting
from rlrt.data.problems import optional_fields
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.policy_loss import PolicyLoss
from rlrt.model.teacher import Teacher
from rlrt.reward.verifier import Verifier
from rlrt.training.evaluator import Evaluator


@dataclass(frozen=True)
class CheapParts:
    """All that can be built, and refused, before anything is read or loaded."""

    credit: CreditAssigner
    context: Context | None
    teacher: Teacher
    loss: PolicyLoss
    aggregation: Aggregation
    engine: Engine
    verifier: Verifier
    evaluator: Evaluator
    source: ProblemSource
    run: RunSettings
    model: Model
    prompts: PromptSettings
    training: Training
    checkpoint: CheckpointSettings
    dtype: torch.dtype


def build_cheap_parts(config: DictConfig) -> CheapParts:
    """Every component from its settings; UserError for the first that is out of range."""
    for group in (
        "model",
        "training",
        "credit",
        "teacher",
        "loss",
        "aggregation",
        "engine",
        "reward",
    ):
        if not config.get(group):
            raise UserError(f"{group} is missing, it must name a file of configs/{group}")
    parts = CheapParts(
        run=_run_settings(config),
        model=build(config.model),
        prompts=build(config.prompts),
        training=build(config.training),
        checkpoint=build(config.checkpoint),
        dtype=check_trainer(config),
        credit=build(config.credit),
        context=build(config.context),
        teacher=build(config.teacher),
        loss=build(config.loss),
        aggregation=build(config.aggregation),
        engine=build(config.engine),
        verifier=build(config.reward),
        evaluator=build(config.evaluation),
        source=build_source(config.data),
    )
    evaluated, saved = parts.evaluator.every_n_steps, parts.checkpoint.every_n_steps
    if evaluated is not None and evaluated % saved:
        raise UserError(
            f"checkpoint.every_n_steps is {saved}, it must divide evaluation.every_n_steps "
            f"({evaluated}): the best checkpoint is one that was evaluated"
        )
    last = max(parts.checkpoint.export_steps, default=0)
    if last > config.trainer.max_epochs:
        raise UserError(
            f"checkpoint.export_steps names {last}, it must lie in [0, {config.trainer.max_epochs}] "
            "(trainer.max_epochs)"
        )
    check_ranks(config, parts.training, parts.engine)
    _check_teacher_view(parts)
    return parts


def _check_teacher_view(parts: CheapParts) -> None:
    """UserError where the method's teacher view lacks something, or where one is set and not used."""
    method, context = type(parts.credit).__name__, parts.context
    if not parts.credit.uses_context:
        if context is not None:
            raise UserError(
                f"{method} reads no teacher, so context would not be used: leave context away"
            )
        if not parts.teacher.is_policy:
            raise UserError(
                f"{method} reads no teacher, so teacher would not be used: leave teacher away"
            )
        return
    if context is None:
        raise UserError(
            f"{method} reads a teacher behind a privileged context, and context is none: choose one, "
            "for example context=correct_peer"
        )
    for need in sorted(context.needs - parts.source.provides):
        raise UserError(
            f"context shows the teacher a problem's {need}, and data={type(parts.source).__name__} "
            f"has none: choose data that has (data.{need}_column names it in a file), or another "
            "context"
        )


def _run_settings(config: DictConfig) -> RunSettings:
    names = ("seed", "record_rollouts", "check", "card_gb")
    settings = {name: config[name] for name in names if name in config}
    require_types(RunSettings, settings, "")
    return checked(RunSettings, **settings)


def read_problems(parts: CheapParts, prompts: Prompts) -> tuple[ProblemSet, ProblemSet]:
    """Training and held-out problems whose prompts fit; prints rows kept, and dropped and why."""
    found = []
    for name, read in (("train", parts.source.train), ("held out", parts.source.held_out)):
        problems = fitting(checked(read), prompts, parts.training.max_prompt_tokens)
        found.append(problems)
        reasons = ", ".join(f"{count} {reason}" for reason, count in problems.dropped.items())
        say(f"{name} problems: {len(problems.problems)} kept; dropped: {reasons or 'none'}")
        if not problems.problems:
            raise UserError(f"no {name} problem is left; dropped: {reasons or 'none'}")
    needed = parts.context.needs if parts.context is not None else frozenset()
    for need in sorted(needed - optional_fields(found[0])):
        raise UserError(
            f"context shows the teacher a problem's {need}, and not one training problem has a {need}"
        )
    return found[0], found[1]
