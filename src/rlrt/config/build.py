"""The components of a run from its settings: all that can be refused before anything slow begins."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from rlrt.config.commands import needs_gpu, no_gpu_error
from rlrt.config.compose import build, check_part, user_errors
from rlrt.config.problems import build_source
from rlrt.config.schema import (
    CheckpointSettings,
    Model,
    PromptSettings,
    RunSettings,
    Training,
)
from rlrt.context.context import Context
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemSource
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.loss.objective import Aggregation
from rlrt.loss.policy_loss import PolicyLoss
from rlrt.model.teacher import Teacher
from rlrt.reward.verifier import Verifier
from rlrt.training.evaluator import Evaluator
from rlrt.validation import check_settings, spelled

REQUIRED = ("model", "training", "credit", "teacher", "loss", "aggregation", "engine", "reward")
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}  # of trainer.precision


@dataclass(frozen=True)
class Components:
    """All that can be built, and refused, before anything is read or loaded."""

    run: RunSettings
    model: Model
    prompts: PromptSettings
    training: Training
    checkpoint: CheckpointSettings
    dtype: torch.dtype
    credit: CreditAssigner
    context: Context | None
    teacher: Teacher
    loss: PolicyLoss
    aggregation: Aggregation
    engine: Engine
    verifier: Verifier
    evaluator: Evaluator
    source: ProblemSource


def build_components(config: DictConfig) -> Components:
    """Every component from its settings; UserError for the first that is out of range."""
    for group in REQUIRED:
        if not config.get(group):
            raise UserError(f"{group} is missing, it must name a file of configs/{group}")
    components = Components(
        run=_run_settings(config),
        model=build(config.model),
        prompts=build(config.prompts),
        training=build(config.training),
        checkpoint=build(config.checkpoint),
        dtype=_checked_dtype(config),  # after training, whose steps are the trainer's epochs
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
    _check_steps(config, components)
    _check_ranks(config, components)
    _check_teacher_view(components)
    return components


@user_errors()
def _run_settings(config: DictConfig) -> RunSettings:
    names = ("seed", "record_rollouts", "check", "card_gb")
    settings = {name: config[name] for name in names if name in config}
    check_settings(RunSettings, settings, "")
    return RunSettings(**settings)


def _checked_dtype(config: DictConfig) -> torch.dtype:
    """The dtype of ``trainer.precision``; UserError for a trainer that this project does not run on."""
    for name, allowed in (("precision", [*DTYPES]), ("accelerator", ["cpu", "gpu"])):
        _require(config, name, config.trainer[name] in allowed, f"one of {', '.join(allowed)}")
    epochs, strategy = config.trainer.max_epochs, config.trainer.strategy
    _require(config, "max_epochs", _is_count(epochs), "a whole number from 1")
    named = isinstance(strategy, str) and strategy != "auto"
    _require(config, "strategy", not named, "auto; strategy=<name> chooses another")
    for node in (config.trainer, *config.logger.values()):
        check_part(node)
    if needs_gpu(config) and not torch.cuda.is_available():
        raise no_gpu_error(config)
    return DTYPES[config.trainer.precision]


def _check_steps(config: DictConfig, components: Components) -> None:
    """UserError where evaluations, checkpoints and exports do not fit together."""
    evaluated = components.evaluator.every_n_steps
    saved, exported = components.checkpoint.every_n_steps, components.checkpoint.export_steps
    if evaluated is not None and evaluated % saved:
        raise UserError(
            f"checkpoint.every_n_steps is {saved}, it must divide evaluation.every_n_steps "
            f"({evaluated}): the best checkpoint is one that was evaluated"
        )
    last = max(exported, default=0)
    if last > config.trainer.max_epochs:
        raise UserError(
            f"checkpoint.export_steps names {last}, it must lie in [0, {config.trainer.max_epochs}] "
            "(trainer.max_epochs)"
        )


def _check_ranks(config: DictConfig, components: Components) -> None:
    """UserError where the ranks are not those that were launched, or cannot share the work evenly."""
    count = rank_count(config)
    launched = int(os.environ.get("WORLD_SIZE", count))
    if launched != count:
        raise UserError(
            f"trainer.devices x trainer.num_nodes is {count}, and {launched} processes were launched: "
            "they must be equal"
        )
    problems = components.training.problems_per_update
    if problems % count:
        raise UserError(
            f"training.problems_per_update is {problems}, it must be a multiple of "
            f"the {count} ranks: a group stays on one of them"
        )
    with user_errors():
        components.engine.require_ranks(count)


def _check_teacher_view(components: Components) -> None:
    """UserError where the method's teacher view lacks something, or where one is set and not used."""
    method, context = type(components.credit).__name__, components.context
    if not components.credit.uses_context:
        unused = {"context": context is not None, "teacher": not components.teacher.is_policy}
        for setting in (name for name, is_set in unused.items() if is_set):
            raise UserError(
                f"{method} reads no teacher, so {setting} would not be used: leave {setting} away"
            )
        return
    if context is None:
        raise UserError(
            f"{method} reads a teacher that is given a privileged context, and context is none: "
            "choose one, for example context=correct_peer"
        )
    for need in sorted(context.needs - components.source.provides):
        raise UserError(
            f"context shows the teacher a problem's {need}, and "
            f"data={type(components.source).__name__} has none: choose data that has "
            f"(data.{need}_column names it in a file), or another context"
        )


def rank_count(config: DictConfig) -> int:
    """How many processes the run has, one for each device."""
    trainer = config.trainer
    devices, nodes = trainer.devices, trainer.num_nodes
    if trainer.strategy == "auto":
        one = type(devices) is int and devices == 1 and nodes == 1
        _require(config, "devices", one, "1 with strategy=single; strategy=fsdp uses several")
        return 1
    if devices == "auto" and trainer.accelerator == "gpu":
        devices = torch.cuda.device_count() or int(config.get("check", False))
    allowed = "a whole number from 1, on GPUs also auto: all of the machine"
    _require(config, "devices", _is_count(devices), allowed)
    _require(config, "num_nodes", _is_count(nodes), "a whole number from 1")
    return int(devices) * int(nodes)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # true is an int, too


def _require(config: DictConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"trainer.{name} is {spelled(config.trainer[name])}, it must be {allowed}")
