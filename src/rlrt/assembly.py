"""A run put together from its configuration, cheapest parts first."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from rlrt.batch import ProblemSet
from rlrt.configuration import build, checked
from rlrt.context.context import Context
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import ProblemDataModule, fitting
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec
from rlrt.errors import UserError
from rlrt.evaluation.evaluator import Evaluator
from rlrt.evaluation.judging import Judge
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.load import export, load_config, load_policy, load_tokenizer, stop_token_ids
from rlrt.reward.verifier import Verifier
from rlrt.training.checkpoint import AtomicCheckpointIO, Checkpoints
from rlrt.training.files import write_atomically
from rlrt.training.metrics_csv import MetricsCSV
from rlrt.training.module import Optimization, PolicyModule
from rlrt.training.rollouts import RolloutCallback, RolloutParts, RolloutSettings
from rlrt.training.view import LiveView

console = Console()


@dataclass(frozen=True)
class CheapParts:
    """All that can be built, and refused, before anything is read or loaded."""

    credit: CreditAssigner
    context: Context | None
    loss: ClippedSurrogate
    aggregation: Aggregation
    optimization: Optimization
    engine: Engine
    verifier: Verifier
    evaluator: Evaluator
    source: Any
    dtype: torch.dtype


def build_cheap_parts(config: DictConfig) -> CheapParts:
    """Every component from its settings; UserError for the first that is out of range."""
    parts = CheapParts(
        credit=build(config.credit),
        context=build(config.context),
        loss=build(config.loss),
        aggregation=build(config.aggregation),
        optimization=build(config.training.optimization),
        engine=build(config.engine),
        verifier=build(config.reward),
        evaluator=build(config.evaluation),
        source=build(config.data),
        dtype=_dtype(config.trainer.precision),
    )
    if parts.credit.uses_context and parts.context is None:
        raise UserError(
            f"{type(parts.credit).__name__} reads a teacher behind a privileged context, and context "
            "is none: choose one, for example context=correct_peer"
        )
    if parts.context is not None and not parts.credit.uses_context:
        raise UserError(
            f"{type(parts.credit).__name__} reads no teacher, so context would not be used: leave "
            "context away"
        )
    _check_lengths(config)
    _check_hardware(config)
    return parts


def _dtype(precision: str) -> torch.dtype:
    dtypes = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
    if precision not in dtypes:
        raise UserError(f"trainer.precision is {precision}, it must be one of {', '.join(dtypes)}")
    return dtypes[precision]


def _check_lengths(config: DictConfig) -> None:
    training = config.training
    longest = training.max_prompt_tokens + training.max_response_tokens
    if training.max_prompt_tokens < 1:
        raise UserError(
            f"training.max_prompt_tokens is {training.max_prompt_tokens}, it must be >= 1"
        )
    if training.token_budget < longest:
        raise UserError(
            f"training.token_budget is {training.token_budget}, it must hold one sequence of "
            f"max_prompt_tokens + max_response_tokens = {longest}"
        )
    if config.trainer.max_epochs < 1:
        raise UserError(f"trainer.max_epochs is {config.trainer.max_epochs}, it must be at least 1")


def _check_hardware(config: DictConfig) -> None:
    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            f"model={config.model.name} runs on a GPU and PyTorch finds none here: choose model=tiny, "
            "or trainer.accelerator=cpu if you mean it"
        )


def read_problems(
    parts: CheapParts, prompts: Prompts, config: DictConfig
) -> tuple[ProblemSet, ProblemSet]:
    """Training and held-out problems whose prompts fit; prints rows kept, and dropped and why."""
    found = []
    for name, read in (("train", parts.source.train), ("held out", parts.source.held_out)):
        problems = fitting(checked(read), prompts, config.training.max_prompt_tokens)
        found.append(problems)
        reasons = ", ".join(f"{count} {reason}" for reason, count in problems.dropped.items())
        console.print(f"{name} problems: {len(problems.problems)} kept; dropped: {reasons or 'none'}")
    if not found[1].problems:
        raise UserError("no held-out problem is left to evaluate on")
    return found[0], found[1]


@dataclass(frozen=True)
class Run:
    """A training that is ready to start."""

    config: DictConfig
    folder: Path
    trainer: L.Trainer
    module: PolicyModule
    data: ProblemDataModule
    rollouts: RolloutCallback
    checkpoints: Checkpoints
    tokenizer: PreTrainedTokenizerBase

    def fit_and_finish(self, checkpoint: Path | None) -> None:
        """Train, evaluate the last weights, export them."""
        self.trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint)
        self.module.to(self.trainer.strategy.root_device)  # fit() leaves it on the host
        step = self.trainer.current_epoch
        self.rollouts.row = {}
        self.rollouts.sync(self.module, step, self.data.problems_of_step(step))
        self.rollouts.evaluate(self.module, self.data, step)
        self.checkpoints.link_best()
        self.rollouts.engine.close()
        dtype = self.rollouts.engine_spec.dtype
        export(self.module.policy, self.tokenizer, self.folder / "export", dtype)
        first, last = self.rollouts.evaluations.rows[0], self.rollouts.evaluations.rows[-1]
        score = self.checkpoints.score
        console.print(
            f"held-out {score}: {float(first[score]):.3f} before, {float(last[score]):.3f} after "
            f"{step} rollout steps; run folder: {self.folder}"
        )


def build_run(config: DictConfig, folder: Path, first_step: int) -> Run:
    """Cheap parts, then problems, then the policy; the engine starts with the fit."""
    _quiet_libraries()
    L.seed_everything(config.seed, verbose=False)
    parts = build_cheap_parts(config)
    tokenizer = checked(load_tokenizer, config.model.path)
    prompts = checked(
        Prompts, tokenizer, config.prompts.instruction, config.model.enable_thinking
    )
    train, held_out = read_problems(parts, prompts, config)
    data = checked(
        ProblemDataModule,
        train,
        held_out,
        config.seed,
        config.training.problems_per_step,
        config.training.problems_per_update,
    )
    spec, settings = _lengths(config, parts, tokenizer)
    write_atomically(folder / "config.yaml", lambda partial: OmegaConf.save(config, partial))

    policy = checked(load_policy, config.model.path, torch.float32, config.model.random_init_seed)
    if config.model.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    module = PolicyModule(
        policy,
        parts.loss,
        parts.aggregation,
        parts.optimization,
        config.training.temperature,
        config.training.token_budget,
    )
    judge = Judge(tokenizer, parts.verifier)
    rollouts = RolloutCallback(
        settings,
        RolloutParts(
            parts.engine, spec, prompts, judge, parts.credit, parts.context, parts.evaluator
        ),
        folder,
        first_step,
    )
    checkpoints = checked(
        Checkpoints,
        folder / "checkpoints",
        rollouts.evaluations,
        f"avg@{parts.evaluator.samples}",
        **config.checkpoint,
    )
    loggers = [
        MetricsCSV(folder, first_step),
        *(build(logger, save_dir=str(folder)) for logger in config.logger.values()),
    ]
    trainer = build(
        config.trainer,
        logger=loggers,
        callbacks=[rollouts, LiveView(rollouts, console), checkpoints],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
    )
    return Run(config, folder, trainer, module, data, rollouts, checkpoints, tokenizer)


def _lengths(
    config: DictConfig, parts: CheapParts, tokenizer: PreTrainedTokenizerBase
) -> tuple[EngineSpec, RolloutSettings]:
    """What engine and rollouts may fill of the model's context; UserError where it is too short."""
    training = config.training
    model_tokens = checked(load_config, config.model.path).max_position_embeddings
    longest = training.max_prompt_tokens + training.max_response_tokens
    if longest > model_tokens:
        raise UserError(
            f"training.max_prompt_tokens + max_response_tokens = {longest} is more than the "
            f"{model_tokens} tokens that the model at {config.model.path} takes"
        )
    spec = EngineSpec(
        config.model.path, stop_token_ids(config.model.path, tokenizer), parts.dtype, longest
    )
    settings = checked(
        RolloutSettings,
        seed=config.seed,
        rollouts_per_problem=training.rollouts_per_problem,
        problems_per_update=training.problems_per_update,
        temperature=training.temperature,
        max_response_tokens=training.max_response_tokens,
        max_model_tokens=model_tokens,
        record_rollouts=config.record_rollouts,
    )
    return spec, settings


def _quiet_libraries() -> None:
    """Keep the screen for the run: no banners, no advice that does not apply."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*`IterableDataset` has `__len__` defined.*")
