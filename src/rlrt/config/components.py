"""The components of a run from its settings: all that can be refused before anything slow begins."""

import os
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rlrt.config.command_line import needs_gpu, no_gpu_error
from rlrt.config.compose import build, check_node, user_errors
from rlrt.config.problem_sets import build_source
from rlrt.context.context import Context
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemSource
from rlrt.data.sources import HubSource
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.hub import find_commit, is_local, refuse_unused
from rlrt.loss.objective import Aggregation
from rlrt.loss.policy_loss import PolicyLoss
from rlrt.model.load import Attention, Kernels
from rlrt.model.teacher import Separate, Teacher
from rlrt.reward.verifier import Verifier
from rlrt.training.evaluator import Evaluator
from rlrt.training.optimization import Optimization
from rlrt.validation import check_settings, spelled, validated

MAX_SEED = 2**32 - 1  # NumPy takes no larger one
REQUIRED = ("model", "training", "credit", "teacher", "loss", "aggregation", "engine", "reward")
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}  # of trainer.precision


@validated("training")
@dataclass(frozen=True)
class Training:
    """The size of a rollout step and of an update. Lengths and the budget are in tokens."""

    rollout_steps: PositiveInt
    problems_per_step: PositiveInt
    problems_per_update: PositiveInt
    rollouts_per_problem: PositiveInt
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    temperature: Annotated[
        float,
        Field(gt=0, description="it must be above 0: greedy responses of a group are all the same"),
    ]
    token_budget: PositiveInt  # of a micro-batch
    score_all: bool  # read the student view of every rollout, needed or not
    # times that groups without a signal are replaced by other problems'
    resample_rounds: NonNegativeInt
    # last tokens of a response that are penalized; null: none
    overlong_buffer: Annotated[PositiveInt | None, Field(description="it must be at least 1")]
    mask_truncated: bool  # leave responses that were cut out of the loss and its denominator
    optimization: Optimization

    def __post_init__(self) -> None:
        if self.overlong_buffer is not None and self.overlong_buffer > self.max_response_tokens:
            raise ValueError(
                f"training.overlong_buffer is {self.overlong_buffer}, it must be null or lie in "
                f"[1, {self.max_response_tokens}] (training.max_response_tokens)"
            )
        if self.problems_per_step % self.problems_per_update:
            raise ValueError(
                f"training.problems_per_step is {self.problems_per_step}, it must be a multiple of "
                f"training.problems_per_update ({self.problems_per_update})"
            )
        if self.token_budget < self.longest_sequence:
            raise ValueError(
                f"training.token_budget is {self.token_budget}, it must hold one sequence of "
                f"max_prompt_tokens + max_response_tokens = {self.longest_sequence}"
            )

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest student prompt with the longest response."""
        return self.max_prompt_tokens + self.max_response_tokens


@validated("model")
@dataclass(frozen=True)
class Model:
    """Which policy is trained. ``path`` is a folder or a name on the hub, there of ``revision``; a run
    stores as ``commit`` what that stood for when it began.

    ``shape`` holds what its config.json says of its sizes, for a check where that cannot be reached.
    ``accelerator`` and ``precision`` are what its preset hands to the trainer, checked there; whether
    ``kernels`` and ``attention`` can be had here, model/load.py.
    """

    name: str
    path: str
    kind: Literal["base", "instruct", "thinking"]
    enable_thinking: bool | None
    random_init_seed: NonNegativeInt | None
    accelerator: str
    precision: str
    gradient_checkpointing: bool
    save_attention: bool
    kernels: Kernels
    attention: Attention
    shape: dict[str, Any] | None = None
    revision: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.save_attention and not self.gradient_checkpointing:
            raise ValueError(
                "model.save_attention is true, which is for model.gradient_checkpointing=true: without "
                "it everything is saved"
            )
        folder = Path(self.path).expanduser()
        if not self.path or (self.path.startswith((".", "/", "~")) and not folder.is_dir()):
            raise ValueError(
                f"model.path is {self.path!r}, and no such folder exists; allowed: a model folder or "
                "a name on the hub such as Qwen/Qwen3-4B-Base"
            )
        local = "model.path" if is_local(self.path) else ""
        refuse_unused(self.revision, self.commit, "model", local)

    @property
    def at(self) -> str | None:
        """The commit, where it is known, else the revision."""
        return self.commit or self.revision


@validated("prompts")
@dataclass(frozen=True)
class PromptSettings:
    """What follows every question, on a line of its own, and the chat template's thinking switch in
    either view; null leaves the template's default. ``system`` is a system message of both views, for
    problems without one of their own.
    """

    instruction: str
    student_thinking: bool | None
    teacher_thinking: bool | None
    system: str | None = None


@validated("checkpoint")
@dataclass(frozen=True)
class CheckpointSettings:
    """A checkpoint after every so many rollout steps, and how many of them stay.

    The weights alone, in the engine's dtype, also stay from every ``export_every_n_steps``-th step,
    0 included, and from those that ``export_steps`` names.
    """

    every_n_steps: PositiveInt
    keep: Annotated[int, Field(ge=2)]  # one may be damaged
    export_every_n_steps: Annotated[
        PositiveInt | None, Field(description="it must be at least 1")
    ] = None
    export_steps: list[NonNegativeInt] = field(default_factory=list)


@validated("")
@dataclass(frozen=True)
class RunSettings:
    """The settings without a group."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    record_rollouts: bool
    check: bool = False  # everything, and start nothing
    card_gb: PositiveFloat | None = None  # 1e9 bytes of a card; null: as found


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
    names = [field.name for field in fields(RunSettings)]
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
    if "wandb" in config.logger and find_spec("wandb") is None:
        raise UserError(
            "logger=wandb needs the package wandb, which is not installed: "
            ".venv/bin/uv pip install -p .venv -c requirements/cpu.txt wandb"
        )
    for node in (config.trainer, *config.logger.values()):
        check_node(node)
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


@user_errors()
def pin_commits(components: Components) -> Components:
    """The same components, each at the commit that its revision now stands for, where that can be known.

    UserError where a revision does not exist. A commit that is set already, by the run that is
    resumed, stays.
    """
    model, teacher, source = components.model, components.teacher, components.source
    model = replace(model, commit=_commit(model, "model"))
    if isinstance(teacher, Separate):
        teacher = Separate(teacher.path, teacher.revision, _commit(teacher, "teacher"))
    if isinstance(source, HubSource):
        source = source.pinned()
    return replace(components, model=model, teacher=teacher, source=source)


def _commit(model: Model | Separate, group: str) -> str | None:
    if model.commit is not None or is_local(model.path):
        return model.commit
    return find_commit(model.path, "model", model.revision, f"{group}.revision")


def config_with_commits(config: DictConfig, components: Components) -> DictConfig:
    """A copy of the configuration that holds the commits of its components."""
    stored = config.copy()
    parts = {"model": components.model, "teacher": components.teacher, "data": components.source}
    for group, part in parts.items():
        if (commit := getattr(part, "commit", None)) is not None:
            OmegaConf.update(stored, f"{group}.commit", commit, force_add=True)
    return stored
