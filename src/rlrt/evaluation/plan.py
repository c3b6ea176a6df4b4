"""What one policy is asked, and how: everything that can be refused before weights are read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.compose import build, checked
from rlrt.config.stored_policies import StoredPolicy, find_policy
from rlrt.context.context import Context
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec
from rlrt.evaluation.command import Words
from rlrt.evaluation.sampling import EvaluationSampling
from rlrt.evaluation.settings import (
    EvaluationSettings,
    compose_for,
    fit_responses,
    model_settings,
)
from rlrt.model.load import load_config, load_tokenizer, stop_token_ids
from rlrt.reward.verifier import Verifier
from rlrt.validation import check_settings

JUDGING = ("extract", "tail_characters", "max_answer_characters", "timeout_s", "memory_gib")
UNREAD = ("_name_or_path", "transformers_version", "dtype")  # of a shape: no response hangs on them
TEACHER_WORDS = 512  # tokens of a teacher prompt beside the question and the demonstration


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

    @property
    def max_teacher_tokens(self) -> int:
        """How long a prompt of the teacher view may be."""
        return self.spec.max_model_tokens - self.sampling.max_response_tokens

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides how a question is answered; not how many are asked. Reads the weights once."""
        config = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(config, dict)
        shape = {k: v for k, v in self.shape.to_dict().items() if k not in UNREAD}
        return {
            "policy": self.stored.digest(),
            "model_settings": digest(shape),
            "stop_token_ids": list(self.spec.stop_token_ids),
            "tokenizer": digest(_spelling(self.tokenizer)),
            "seed": self.settings.seed,
            "dtype": str(self.settings.number).removeprefix("torch."),
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
        """Of the settings that a verdict depends on."""
        return digest({k: v for k, v in self.config.reward.items() if k in (*JUDGING, "_target_")})


def digest(settings: object) -> str:
    """Eight hexadecimal digits that stand for plain settings."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _spelling(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """What decides how messages become ids, and ids text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # of all but the slow ones
    words = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        words |= {"truncation": None, "padding": None}  # of the last call
    special = sorted(map(str, tokenizer.all_special_ids))
    return [words, special, tokenizer.chat_template]


def make_plan(word: str, words: Words, with_context: bool) -> Plan:
    """The plan of the policy ``word``; UserError for the first setting that is wrong or does not fit."""
    stored = find_policy(word)
    model = model_settings(stored)
    config = compose_for(stored, model, words)
    shows = bool(config.context)  # to any policy of the command: one engine may serve them all
    if not with_context:
        config.context = None
    names = ("seed", "accelerator", "dtype", "max_problems")
    plain = {name: config[name] for name in names}
    checked(check_settings, EvaluationSettings, plain, "")
    path = stored.local_folder()
    tokenizer = checked(load_tokenizer, path, setting="model")
    shape = checked(load_config, path, setting="model")
    fit_responses(config, shape.max_position_embeddings, words)
    settings, sampling = checked(EvaluationSettings, **plain), build(config.sampling)
    return Plan(
        stored,
        model,
        config,
        settings,
        sampling,
        _engine(config, shape),
        build(config.reward),
        build(config.context),
        tokenizer,
        checked(Prompts, tokenizer, **asdict(build(config.prompts))),
        shape,
        EngineSpec(
            path,
            checked(stop_token_ids, path, tokenizer),
            settings.number,
            min(_longest(sampling, shows), shape.max_position_embeddings),
        ),
    )


def _engine(config: DictConfig, shape: PretrainedConfig) -> Engine:
    engine: Engine = build(config.engine)
    checked(engine.require_ranks, 1)
    checked(engine.require_shape, shape)
    return engine


def _longest(sampling: EvaluationSampling, shows: bool) -> int:
    """Tokens of the longest sequence; a context may show a whole response in the prompt."""
    longest = sampling.max_prompt_tokens + sampling.max_response_tokens
    return longest + sampling.max_response_tokens + TEACHER_WORDS if shows else longest
