"""A run put together from its configuration, cheapest parts first."""

from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.configuration import build, checked, first_sentence, shared_settings
from rlrt.config.console import console, quiet_libraries, say
from rlrt.config.fitting import fitted
from rlrt.config.parts import CheapParts, build_cheap_parts, read_problems
from rlrt.config.pinning import pinned, with_commits
from rlrt.config.teacher_model import require_vocabulary, teacher_folder, teacher_tokens
from rlrt.data.module import ProblemDataModule
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import EngineSpec
from rlrt.errors import UserError, is_rank_zero
from rlrt.files import write_atomically
from rlrt.loss.objective import Objective
from rlrt.model.load import (
    chosen_attention,
    chosen_kernels,
    hollow_policy,
    load_config,
    load_policy,
    load_tokenizer,
    policy_folder,
    stop_token_ids,
    use_kernels,
)
from rlrt.model.packed_attention import checkpoint_activations
from rlrt.reward.judge import Judge
from rlrt.training.checkpoint import AtomicCheckpointIO, Checkpoints
from rlrt.training.exports import Exports
from rlrt.training.liveness import RankWatch
from rlrt.training.module import PolicyModule
from rlrt.training.rollouts import RolloutCallback, RolloutParts
from rlrt.training.sampler import RolloutSettings
from rlrt.training.step_table import MetricsCSV
from rlrt.training.strategy import FullySharded
from rlrt.training.updates import Update
from rlrt.training.view import LiveView


@dataclass(frozen=True)
class Run:
    """A training that is ready to start."""

    folder: Path
    trainer: L.Trainer
    module: PolicyModule
    data: ProblemDataModule
    rollouts: RolloutCallback
    checkpoints: Checkpoints
    exports: Exports
    watch: RankWatch

    def fit_and_finish(self, checkpoint: Path | None, verified: bool = True) -> None:
        """Train, evaluate the last weights, export them; ``verified``: the checkpoint is known whole."""
        self.checkpoints.unverified = None if verified else checkpoint
        say(f"run folder: {self.folder}\nstarting {type(self.rollouts.engine).__name__} …")
        with self.rollouts.parts.judge.verifier, self.watch:
            try:
                self.trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint)
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
            except MisconfigurationException as error:
                raise UserError(first_sentence(error)) from error
            self._finish()
        self.rollouts.engine.close()  # last: vLLM takes the processes' connections along

    def _finish(self) -> None:
        self.module.to(self.trainer.strategy.root_device)  # fit() leaves it on the host
        step = self.trainer.current_epoch
        self.rollouts.row = {}
        self.rollouts.start_engine(self.module)
        self.rollouts.sync(self.module, step, self.data.problems_of_step(step))
        self.rollouts.evaluate(self.module, self.data, step)
        self.checkpoints.link_best()
        self.exports.finish(self.module, step)
        first, last = self.rollouts.evaluations.rows[0], self.rollouts.evaluations.rows[-1]
        score = self.checkpoints.score
        say(
            f"held-out {score}: {float(first[score]):.3f} after {first['step']} rollout steps, "
            f"{float(last[score]):.3f} after {step}\nrun folder: {self.folder}"
        )


def build_run(config: DictConfig, folder: Path, first_step: int) -> Run:
    """Cheap parts, then problems, then the policy; the engine starts with the fit."""
    quiet_libraries()
    parts = pinned(build_cheap_parts(config))
    L.seed_everything(parts.run.seed, verbose=False)
    model, training = parts.model, parts.training
    policy_path = checked(policy_folder, model.path, weights=False, revision=model.at)
    tokenizer = checked(load_tokenizer, policy_path)
    prompts = checked(Prompts, tokenizer, **asdict(parts.prompts))
    shape = shape_of(policy_path)
    model_tokens = require_lengths(parts, shape, tokenizer)
    spec = _engine_spec(parts, policy_path, tokenizer)
    if config.trainer.accelerator == "gpu":
        parts, spec = fitted(config, parts, spec, shape, teacher_shape(parts))
    kernels = _kernels(config, parts, policy_path)
    settings = _rollout_settings(parts, model_tokens)
    problems = read_problems(parts, prompts)
    sizes = (training.problems_per_step, training.problems_per_update)
    if model.random_init_seed is None:  # a download of many gigabytes: after all that may be wrong
        policy_path = checked(policy_folder, model.path, weights=True, revision=model.at)
    updates: list[Update] = []  # the callback fills it, the data module hands it out
    data = checked(ProblemDataModule, *problems, parts.run.seed, *sizes, updates)
    judge = Judge(tokenizer, parts.verifier)
    exchangeable = RolloutParts(
        parts.engine, spec, prompts, judge, parts.credit, parts.context, parts.evaluator
    )
    rollouts = RolloutCallback(settings, exchangeable, updates, folder, first_step)
    score = f"avg@{parts.evaluator.samples}"
    saved = parts.checkpoint
    checkpoints = Checkpoints(
        folder / "checkpoints", rollouts.evaluations, score, saved.every_n_steps, saved.keep
    )
    exported = (saved.export_every_n_steps, saved.export_steps)
    exports = Exports(folder, tokenizer, spec.dtype, *exported)
    watch = RankWatch(folder, shared_settings(config))
    views = [LiveView(rollouts, console)] if is_rank_zero() else []
    trainer = _trainer(config, folder, first_step, [watch, exports, rollouts, *views, checkpoints])
    sharded = isinstance(trainer.strategy, FullySharded)
    module = _policy_module(parts, policy_path, sharded, kernels)
    if is_rank_zero():
        stored = with_commits(config, parts)
        write_atomically(
            folder / "config.yaml", lambda partial: OmegaConf.save(stored, partial, resolve=True)
        )
    return Run(folder, trainer, module, data, rollouts, checkpoints, exports, watch)


def _trainer(
    config: DictConfig, folder: Path, first_step: int, callbacks: list[L.Callback]
) -> L.Trainer:
    loggers = [build(logger, save_dir=str(folder)) for logger in config.logger.values()]
    # one card casts and gathers layers as several do, so that both compute the same; and its checkpoint
    # is a folder as theirs is, for which moments on the host are not copied there once more
    one_card = config.trainer.strategy == "auto" and config.trainer.precision == "bf16-mixed"
    trainer: L.Trainer = build(
        config.trainer,
        **({"strategy": FullySharded()} if one_card else {}),
        logger=[MetricsCSV(folder, first_step), *loggers],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
    )
    return trainer


def _kernels(config: DictConfig, parts: CheapParts, policy_path: str) -> tuple[str, str]:
    """Of the layers and of attention; UserError where those asked for cannot be had."""
    device = "cuda" if config.trainer.accelerator == "gpu" else "cpu"
    kind = checked(load_config, policy_path).model_type
    return (
        checked(chosen_kernels, parts.model.kernels, kind, device),
        checked(chosen_attention, parts.model.attention, device),
    )


def _policy_module(
    parts: CheapParts, policy_path: str, sharded: bool, kernels: tuple[str, str]
) -> PolicyModule:
    """With the policy itself, or a hollow one whose values rank 0 alone loads."""
    policy = source = None
    if is_rank_zero() or not sharded:
        source = checked(load_policy, policy_path, torch.float32, parts.model.random_init_seed)
    if not sharded:
        policy, source = source, None
    else:
        policy = checked(hollow_policy, policy_path)
    assert policy is not None
    use_kernels(policy, *kernels)
    if parts.model.gradient_checkpointing:
        checkpoint_activations(policy, parts.model.save_attention)
    objective = Objective(
        parts.loss, parts.aggregation, parts.credit.divergence, parts.credit.importance_limit
    )
    return checked(
        PolicyModule,
        policy,
        parts.teacher,
        objective,
        parts.training.optimization,
        parts.training.temperature,
        parts.training.token_budget,
        source,
    )


def shape_of(folder: str, setting: str = "model.path") -> PretrainedConfig:
    """A model's configuration; UserError where it does not load."""
    return checked(load_config, folder, setting)


def teacher_shape(parts: CheapParts) -> PretrainedConfig | None:
    """The configuration of a teacher that is another model."""
    if parts.teacher.path is None:
        return None
    return shape_of(teacher_folder(parts.teacher), "teacher.path")


def require_lengths(
    parts: CheapParts, shape: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None
) -> int:
    """Tokens that policy and teacher take; UserError where that is too short for the run.

    Without a tokenizer another model that teaches is not looked at.
    """
    training = parts.training
    checked(parts.engine.require_shape, shape)
    require_vocabulary(parts.credit.divergence, shape.vocab_size)
    model_tokens = int(shape.max_position_embeddings)
    if parts.teacher.path is not None and tokenizer is not None:
        model_tokens = min(model_tokens, teacher_tokens(parts.teacher, tokenizer, shape))
    longest = training.longest_sequence
    if longest > model_tokens:
        raise UserError(
            f"training.max_prompt_tokens + max_response_tokens = {longest} is more than the "
            f"{model_tokens} tokens that the model at {parts.model.path} takes"
        )
    return model_tokens


def _engine_spec(
    parts: CheapParts, policy_path: str, tokenizer: PreTrainedTokenizerBase
) -> EngineSpec:
    stops = checked(stop_token_ids, policy_path, tokenizer)
    return EngineSpec(policy_path, stops, parts.dtype, parts.training.longest_sequence)


def _rollout_settings(parts: CheapParts, model_tokens: int) -> RolloutSettings:
    training = parts.training
    return RolloutSettings(
        seed=parts.run.seed,
        rollouts_per_problem=training.rollouts_per_problem,
        problems_per_update=training.problems_per_update,
        temperature=training.temperature,
        max_response_tokens=training.max_response_tokens,
        max_model_tokens=model_tokens,
        resample_rounds=training.resample_rounds,
        overlong_buffer=training.overlong_buffer,
        mask_truncated=training.mask_truncated,
        score_all=training.score_all,
        record_rollouts=parts.run.record_rollouts,
    )
