"""The settings of an evaluation, with what fits the policy where the command says nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt

from rlrt.config.compose import CONFIGS, build, compose
from rlrt.config.schema import MAX_SEED
from rlrt.config.stored_policies import StoredPolicy
from rlrt.errors import UserError
from rlrt.evaluation.command import OWN, Words
from rlrt.validation import spelled, validated

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
GROUPS = ("sampling", "engine", "prompts", "reward")


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
        gpu = self.accelerator == "gpu" or (
            self.accelerator == "auto" and torch.cuda.is_available()
        )
        return torch.device("cuda" if gpu else "cpu")

    @property
    def number(self) -> torch.dtype:
        """The engine's, and the policy's."""
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


def compose_for(stored: StoredPolicy, model: DictConfig | None, words: Words) -> DictConfig:
    """The settings with what fits the policy where the command says nothing."""
    thinking = spelled(None if model is None else model.enable_thinking)
    given = [f"model.enable_thinking={thinking}", *words.settings]
    config = compose(given, "eval", OWN)
    for group in GROUPS:
        if not config.get(group):
            raise UserError(f"{group} is missing, it must name a file of configs/{group}")
    prompts = _prompts(config, stored, words)
    if not words.names("sampling"):
        usual = "thinking" if prompts.student_thinking is True else "no_thinking"
        if model is not None and model.name == "tiny":
            usual = "tiny"
        config = compose([f"sampling={usual}", *given], "eval")
    OmegaConf.set_struct(config, False)
    config.prompts = prompts
    require = build(config.sampling)
    _switch(config.prompts, require.thinking, model is not None, words)
    del config["model"]
    return config


def _prompts(config: DictConfig, stored: StoredPolicy, words: Words) -> DictConfig:
    """A run's own, but for what the command names."""
    if stored.config is None or words.names("prompts"):
        return config.prompts
    prompts = stored.config.prompts.copy()
    for name in words.named:
        if name.startswith("prompts."):
            OmegaConf.update(prompts, name.removeprefix("prompts."), OmegaConf.select(config, name))
    return prompts


def _switch(prompts: DictConfig, thinking: bool | None, known: bool, words: Words) -> None:
    """Have the prompts' thinking switch say what the sampling says.

    A policy that is trained without the switch is asked without it.
    """
    own = build(prompts).student_thinking
    named = words.names("prompts") or words.names("prompts.student_thinking")
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


def fit_responses(config: DictConfig, model_tokens: int, words: Words) -> None:
    """Shorten the responses to what the model takes, unless their length was asked for."""
    sampling = build(config.sampling)
    room = model_tokens - sampling.max_prompt_tokens
    if sampling.max_response_tokens <= room:
        return
    if room < 1 or "sampling.max_response_tokens" in words.named:
        raise UserError(
            f"sampling.max_prompt_tokens + max_response_tokens = "
            f"{sampling.max_prompt_tokens + sampling.max_response_tokens} is more than the "
            f"{model_tokens} tokens that the model takes"
        )
    config.sampling.max_response_tokens = room
