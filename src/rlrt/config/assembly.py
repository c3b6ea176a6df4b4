"""A run built from its configuration, cheapest parts first, and ready to start; or only checked."""

from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.command_line import console, print_once, quiet_libraries
from rlrt.config.components import (
    Components,
    build_components,
    config_with_commits,
    pin_commits,
)
from rlrt.config.compose import build, flatten, shared_settings, user_errors
from rlrt.config.memory import check_memory, fit_to_cards
from rlrt.config.problem_sets import read_problems
from rlrt.data.module import ProblemDataModule
from rlrt.data.prompts import Prompts
from rlrt.data.rows import UnreachableError
from rlrt.engine.engine import EngineSpec
from rlrt.errors import UserError, is_rank_zero, one_line
from rlrt.files import write_atomically
from rlrt.hub import is_local
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
from rlrt.model.teacher import Teacher
from rlrt.reward.judge import Judge
from rlrt.training.checkpoint import AtomicCheckpointIO, Checkpoints
from rlrt.training.exports import Exports
from rlrt.training.liveness import RankWatch
from rlrt.training.loggers import log_settings
from rlrt.training.metrics import MetricsCSV
from rlrt.training.module import FullySharded, PolicyModule
from rlrt.training.rollouts import RolloutCallback
from rlrt.training.sampler import RolloutSettings
from rlrt.training.updates import Update
from rlrt.training.view import LiveView

TEACHER = "teacher.path"  # the setting


@dataclass(frozen=True)
class Run:
    """A training that is ready to start; ``config`` is the one that its folder holds."""

    folder: Path
    config: DictConfig
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
        print_once(f"run folder: {self.folder}\nstarting {type(self.rollouts.engine).__name__} …")
        with self.rollouts.judge.verifier, self.watch:
            try:
                self.trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint)
            except SystemExit as error:  # what Lightning makes of Ctrl-C
                interrupt = error.__context__
                if not isinstance(interrupt, KeyboardInterrupt):
                    raise
                raise interrupt from None
            except MisconfigurationException as error:
                raise UserError(one_line(error)) from error
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
        print_once(
            f"held-out {score}: {float(first[score]):.3f} after {first['step']} rollout steps, "
            f"{float(last[score]):.3f} after {step}\nrun folder: {self.folder}"
        )


def build_run(config: DictConfig, folder: Path, first_step: int) -> Run:
    """A run in ``folder``, which then holds its configuration; the engine starts with the fit.

    UserError, before anything is written, where it cannot start.
    """
    quiet_libraries()
    run = _build_run(config, folder, first_step)
    if is_rank_zero():
        write_atomically(
            folder / "config.yaml",
            lambda partial: OmegaConf.save(run.config, partial, resolve=True),
        )
    log_settings(run.trainer.loggers, flatten(run.config))
    return run


@user_errors()
def _build_run(config: DictConfig, folder: Path, first_step: int) -> Run:
    components = pin_commits(build_components(config))
    L.seed_everything(components.run.seed, verbose=False)
    model, training = components.model, components.training

    # of the model its small files first
    policy_path = policy_folder(model.path, weights=False, revision=model.at)
    tokenizer = load_tokenizer(policy_path)
    prompts = Prompts(tokenizer, **asdict(components.prompts))
    shape = load_config(policy_path)
    model_tokens = _require_lengths(components, shape, tokenizer)
    stops = stop_token_ids(policy_path, tokenizer)
    spec = EngineSpec(policy_path, stops, components.dtype, training.longest_sequence)
    device = "cpu"
    if config.trainer.accelerator == "gpu":
        device = "cuda"
        components, spec = fit_to_cards(config, components, spec, shape, _teacher_shape(components))
    kernels = chosen_kernels(model.kernels, shape.model_type, device)
    attention = chosen_attention(model.attention, device)
    problems = read_problems(
        components.source, components.context, prompts, training.max_prompt_tokens
    )
    if model.random_init_seed is None:  # a download of many gigabytes: after all that may be wrong
        policy_path = policy_folder(model.path, weights=True, revision=model.at)

    sizes = (training.problems_per_step, training.problems_per_update)
    # of the current step: the callback fills it, the data module hands it out
    updates: list[Update] = []
    data = ProblemDataModule(*problems, components.run.seed, *sizes, updates)
    rollouts = RolloutCallback(
        _rollout_settings(components, model_tokens),
        components.engine,
        spec,
        prompts,
        Judge(tokenizer, components.verifier),
        components.credit,
        components.context,
        components.evaluator,
        updates,
        folder,
        first_step,
    )
    saved, score = components.checkpoint, f"avg@{components.evaluator.samples}"
    checkpoints = Checkpoints(
        folder / "checkpoints", rollouts.evaluations, score, saved.every_n_steps, saved.keep
    )
    exports = Exports(folder, tokenizer, spec.dtype, saved.export_every_n_steps, saved.export_steps)
    watch = RankWatch(folder, shared_settings(config))
    views = [LiveView(rollouts, console)] if is_rank_zero() else []
    trainer = _trainer(config, folder, first_step, [watch, exports, rollouts, *views, checkpoints])
    module = _policy_module(components, policy_path, trainer, kernels, attention)
    stored = config_with_commits(config, components)
    return Run(folder, stored, trainer, module, data, rollouts, checkpoints, exports, watch)


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


def _policy_module(
    components: Components, policy_path: str, trainer: L.Trainer, kernels: str, attention: str
) -> PolicyModule:
    """With the policy itself; where it is sharded, a hollow one whose values rank 0 alone loads."""
    policy = source = None
    sharded = isinstance(trainer.strategy, FullySharded)
    if is_rank_zero() or not sharded:
        policy = load_policy(policy_path, torch.float32, components.model.random_init_seed)
    if sharded:
        policy, source = hollow_policy(policy_path), policy
    assert policy is not None
    use_kernels(policy, kernels, attention)
    if components.model.gradient_checkpointing:
        checkpoint_activations(policy, components.model.save_attention)
    credit, training = components.credit, components.training
    return PolicyModule(
        policy,
        components.teacher,
        Objective(
            components.loss, components.aggregation, credit.divergence, credit.importance_limit
        ),
        training.optimization,
        training.temperature,
        training.token_budget,
        source,
    )


def _rollout_settings(components: Components, model_tokens: int) -> RolloutSettings:
    training = components.training
    return RolloutSettings(
        seed=components.run.seed,
        rollouts_per_problem=training.rollouts_per_problem,
        problems_per_update=training.problems_per_update,
        temperature=training.temperature,
        max_response_tokens=training.max_response_tokens,
        max_model_tokens=model_tokens,
        resample_rounds=training.resample_rounds,
        overlong_buffer=training.overlong_buffer,
        mask_truncated=training.mask_truncated,
        score_all=training.score_all,
        record_rollouts=components.run.record_rollouts,
    )


def _require_lengths(
    components: Components, shape: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None
) -> int:
    """Tokens that policy and teacher take; UserError where that is too short for the run.

    Without a tokenizer another model that teaches is not looked at.
    """
    components.engine.require_shape(shape)
    divergence, vocabulary = components.credit.divergence, shape.vocab_size
    top_k = None if divergence is None else divergence.top_k
    if top_k is not None and top_k > vocabulary:
        raise UserError(
            f"credit.top_k is {top_k}, it must be null or at most {vocabulary}, the model's vocabulary"
        )
    model_tokens = int(shape.max_position_embeddings)
    if components.teacher.path is not None and tokenizer is not None:
        model_tokens = min(model_tokens, _teacher_tokens(components.teacher, tokenizer, shape))
    longest = components.training.longest_sequence
    if longest > model_tokens:
        raise UserError(
            f"training.max_prompt_tokens + max_response_tokens = {longest} is more than the "
            f"{model_tokens} tokens that the model at {components.model.path} takes"
        )
    return model_tokens


def _teacher_folder(teacher: Teacher) -> str:
    """The folder of a separate teacher's configuration and tokenizer; ValueError where there is none."""
    at = teacher.commit or teacher.revision
    return policy_folder(str(teacher.path), weights=False, setting=TEACHER, revision=at)


def _teacher_shape(components: Components) -> PretrainedConfig | None:
    """The configuration of a teacher that is another model; None for the policy's own."""
    if components.teacher.path is None:
        return None
    return load_config(_teacher_folder(components.teacher), TEACHER)


def _teacher_tokens(
    teacher: Teacher, tokenizer: PreTrainedTokenizerBase, policy: PretrainedConfig
) -> int:
    """The longest sequence that a separate teacher takes; UserError where it cannot read the policy's
    token ids: another tokenizer, or logits of another width.
    """
    folder = _teacher_folder(teacher)
    teacher_tokenizer = load_tokenizer(folder, setting=TEACHER)
    if teacher_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{TEACHER} is {teacher.path}, whose tokenizer differs from the policy's: the teacher "
            "scores the policy's own token ids, so both must share one vocabulary"
        )
    shape = load_config(folder, setting=TEACHER)
    if shape.vocab_size != policy.vocab_size:
        raise UserError(
            f"{TEACHER} is {teacher.path}, whose output has {shape.vocab_size} entries and the "
            f"policy's {policy.vocab_size}: they must be equal"
        )
    return int(shape.max_position_embeddings)


@user_errors()
def check_run(config: DictConfig) -> None:
    """Print what of the run is sound and what could not be checked; UserError where it cannot start.

    Nothing is loaded or written.
    """
    quiet_libraries()
    components = pin_commits(build_components(config))
    print_once("settings and components: valid")
    shape, tokenizer = _shape_and_tokenizer(components)
    if tokenizer is not None:
        print_once("model, tokenizer and stop tokens: found")
    model_tokens = _require_lengths(components, shape, tokenizer)
    longest = components.training.longest_sequence
    print_once(f"longest sequence: {longest} tokens of the {model_tokens} that the model takes")
    _check_problems(components, tokenizer)
    if config.trainer.accelerator != "gpu":
        print_once("would start, on the CPU")
        return
    teacher = _teacher_shape(components) if tokenizer is not None else None
    check_memory(config, components, shape, teacher)


def _shape_and_tokenizer(
    components: Components,
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase | None]:
    """The policy's configuration and tokenizer; the preset's shape alone where they cannot be reached."""
    model = components.model
    try:
        folder = policy_folder(model.path, weights=False, revision=model.at)
    except (ValueError, OSError) as error:
        if model.shape is None or is_local(model.path):
            raise
        print_once(f"tokenizer and prompts: not checked ({one_line(error)})")
        return AutoConfig.for_model(**model.shape), None
    tokenizer = load_tokenizer(folder)
    stop_token_ids(folder, tokenizer)
    return load_config(folder), tokenizer


def _check_problems(components: Components, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Read and count the problems; where they or their prompts cannot be reached, say so."""
    source, limit = components.source, components.training.max_prompt_tokens
    try:
        with user_errors():
            if tokenizer is not None:
                prompts = Prompts(tokenizer, **asdict(components.prompts))
                read_problems(source, components.context, prompts, limit)
                return
            for name, read in (("train", source.train), ("held out", source.held_out)):
                count = len(read().problems)
                print_once(f"{name} problems: {count}, the lengths of their prompts not checked")
    except UserError as error:
        if not isinstance(error.__cause__, UnreachableError):
            raise
        print_once(f"problems: not checked ({error})")
