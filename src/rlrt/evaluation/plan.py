"""What one policy is asked, and how: settings and parts, all that can be refused before weights load."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.components import MAX_SEED
from rlrt.config.compose import CONFIGS, build, compose, user_errors
from rlrt.config.stored_policies import StoredPolicy, find_policy
from rlrt.context.context import Context
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec, Sampling
from rlrt.errors import UserError
from rlrt.evaluation.arguments import OWN, Command
from rlrt.model.load import load_config, load_tokenizer, stop_token_ids
from rlrt.reward.verifier import Verifier
from rlrt.validation import check_settings, spelled, validated

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
GROUPS = ("sampling", "engine", "prompts", "reward")
VERDICT_SETTINGS = (
    "_target_",
    "extract",
    "tail_characters",
    "max_answer_characters",
    "timeout_s",
    "memory_gib",
)
# keys of a model's configuration that change no response
IGNORED_SHAPE_KEYS = ("_name_or_path", "transformers_version", "dtype")
TEACHER_TEMPLATE_TOKENS = 512  # of a teacher prompt beside the question and the demonstration


@validated("sampling")
@dataclass(frozen=True)
class EvaluationSampling:
    """``samples`` responses to every problem. ``thinking`` null leaves the prompts as they are."""

    samples: PositiveInt
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    temperature: float
    top_p: float
    thinking: bool | None

    def __post_init__(self) -> None:
        _ = self.for_engine  # refuses values out of range

    @property
    def for_engine(self) -> Sampling:
        """The part of it that the engine needs."""
        return Sampling(self.max_response_tokens, self.temperature, self.top_p)

    def __str__(self) -> str:
        thinking = {True: ", thinking", False: ", without thinking", None: ""}[self.thinking]
        return (
            f"{self.samples} samples of up to {self.max_response_tokens} tokens, "
            f"temperature {self.temperature:g}, top-p {self.top_p:g}{thinking}"
        )


@validated("")
@dataclass(frozen=True)
class EvaluationSettings:
    """The settings without a group."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    accelerator: Literal["auto", "cpu", "gpu"]
    dtype: Literal["auto", "bfloat16", "float32"]
    max_problems: PositiveInt | None

    def __post_init__(self) -> None:
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator is gpu, and PyTorch finds none here: use auto or cpu")

    @property
    def device(self) -> torch.device:
        on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if on_gpu else "cpu")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The data type of the engine and of the policy."""
        usual = "bfloat16" if self.device.type == "cuda" else "float32"
        return DTYPES[usual if self.dtype == "auto" else self.dtype]


def model_settings(stored: StoredPolicy) -> DictConfig | None:
    """Of the run that made the policy, or of the preset that names its folder; None for others."""
    if stored.config is not None:
        return stored.config.model
    for path in sorted((CONFIGS / "model").glob("*.yaml")):
        preset = OmegaConf.load(path)
        assert isinstance(preset, DictConfig)
        if Path(preset.path).expanduser().resolve() == Path(stored.folder).expanduser().resolve():
            return preset
    return None


def compose_for(stored: StoredPolicy, model: DictConfig | None, command: Command) -> DictConfig:
    """The settings of the command; what it leaves open is chosen to fit the policy."""
    thinking = spelled(None if model is None else model.enable_thinking)
    given = [f"model.enable_thinking={thinking}", *command.settings]
    config = compose(given, "eval", OWN)
    for group in GROUPS:
        if not config.get(group):
            raise UserError(f"{group} is missing, it must name a file of configs/{group}")
    prompts = _prompts(config, stored, command)
    if "sampling" not in command.named_settings:
        usual = "thinking" if prompts.student_thinking is True else "no_thinking"
        if model is not None and model.name == "tiny":
            usual = "tiny"
        config = compose([f"sampling={usual}", *given], "eval")
    OmegaConf.set_struct(config, False)
    config.prompts = prompts
    thinking_wanted = build(config.sampling).thinking
    _set_thinking(config.prompts, thinking_wanted, model is not None, command)
    del config["model"]
    return config


def _prompts(config: DictConfig, stored: StoredPolicy, command: Command) -> DictConfig:
    """The prompts that the policy was trained with, except for what the command names."""
    if stored.config is None or "prompts" in command.named_settings:
        return config.prompts
    prompts = stored.config.prompts.copy()
    for name in command.named_settings:
        if name.startswith("prompts."):
            OmegaConf.update(prompts, name.removeprefix("prompts."), OmegaConf.select(config, name))
    return prompts


def _set_thinking(
    prompts: DictConfig, thinking: bool | None, known: bool, command: Command
) -> None:
    """Set the prompts' thinking switch to what the sampling settings want.

    A policy that was trained without the switch is asked without it. UserError where the command sets
    both, and differently.
    """
    own = build(prompts).student_thinking
    named = not command.named_settings.isdisjoint({"prompts", "prompts.student_thinking"})
    if thinking is None or thinking == own or (own is None and (known or named)):
        return
    if named:
        raise UserError(
            f"prompts.student_thinking is {spelled(own)} and sampling.thinking is {spelled(thinking)}: "
            "they must agree"
        )
    if prompts.teacher_thinking == own:
        prompts.teacher_thinking = thinking
    prompts.student_thinking = thinking


def fit_responses(config: DictConfig, model_tokens: int, command: Command) -> None:
    """Shorten the responses to what the model takes, unless their length was asked for."""
    sampling = build(config.sampling)
    longest = model_tokens - sampling.max_prompt_tokens
    if sampling.max_response_tokens <= longest:
        return
    if longest < 1 or "sampling.max_response_tokens" in command.named_settings:
        raise UserError(
            f"sampling.max_prompt_tokens + max_response_tokens = "
            f"{sampling.max_prompt_tokens + sampling.max_response_tokens} is more than the "
            f"{model_tokens} tokens that the model takes"
        )
    config.sampling.max_response_tokens = longest


@dataclass(frozen=True)
class Plan:
    """One policy with the parts that ask it and judge it; nothing heavy is loaded."""

    stored: StoredPolicy
    model: DictConfig | None  # the settings of its preset, where it has one
    config: DictConfig
    settings: EvaluationSettings
    sampling: EvaluationSampling
    engine: Engine
    verifier: Verifier
    context: Context | None
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    shape: PretrainedConfig
    spec: EngineSpec

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides how a question is answered, but not how many are asked.

        Reads the weights once, for their digest.
        """
        config = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(config, dict)
        shape = {k: v for k, v in self.shape.to_dict().items() if k not in IGNORED_SHAPE_KEYS}
        return {
            "policy": self.stored.digest(),
            "model_settings": digest(shape),
            "stop_token_ids": list(self.spec.stop_token_ids),
            "tokenizer": digest(_tokenizer_identity(self.tokenizer)),
            "seed": self.settings.seed,
            "dtype": str(self.settings.torch_dtype).removeprefix("torch."),
            "engine": {"_target_": config["engine"]["_target_"]},
            "context": config["context"] or None,
            "sampling": {k: v for k, v in config["sampling"].items() if k != "samples"},
            "prompts": config["prompts"],
        }

    @property
    def fingerprint(self) -> str:
        return digest(self.identity)

    @property
    def judged_by(self) -> str:
        """Digest of the settings that a verdict depends on."""
        return digest({k: v for k, v in self.config.reward.items() if k in VERDICT_SETTINGS})


def digest(settings: object) -> str:
    """Eight hexadecimal digits that stand for plain settings."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """Everything that decides how messages become ids, and ids text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # of all but the slow ones
    words = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        # they depend on the last call, not on the model
        words |= {"truncation": None, "padding": None}
    special = sorted(map(str, tokenizer.all_special_ids))
    return [words, special, tokenizer.chat_template]


@user_errors()
def make_plan(name: str, command: Command, with_context: bool) -> Plan:
    """The plan of the policy ``name``; UserError for the first setting that is wrong or does not fit."""
    stored = find_policy(name)
    model = model_settings(stored)
    config = compose_for(stored, model, command)
    # whether the command has a context for any policy: one engine may serve them all
    has_context = bool(config.context)
    if not with_context:
        config.context = None
    plain = {field.name: config[field.name] for field in fields(EvaluationSettings)}
    check_settings(EvaluationSettings, plain, "")
    path = stored.local_folder()
    tokenizer = load_tokenizer(path, setting="model")
    shape = load_config(path, setting="model")
    fit_responses(config, shape.max_position_embeddings, command)
    settings, sampling = EvaluationSettings(**plain), build(config.sampling)
    engine: Engine = build(config.engine)
    engine.require_ranks(1)
    engine.require_shape(shape)
    longest = sampling.max_prompt_tokens + sampling.max_response_tokens
    if has_context:  # it may show a whole response in the prompt
        longest += sampling.max_response_tokens + TEACHER_TEMPLATE_TOKENS
    return Plan(
        stored,
        model,
        config,
        settings,
        sampling,
        engine,
        build(config.reward),
        build(config.context),
        tokenizer,
        Prompts(tokenizer, **asdict(build(config.prompts))),
        shape,
        EngineSpec(
            path,
            stop_token_ids(path, tokenizer),
            settings.torch_dtype,
            min(longest, shape.max_position_embeddings),
        ),
    )
