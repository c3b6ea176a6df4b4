"""Loading a policy and its tokenizer, and writing them out as a Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


def load_config(path: str) -> PretrainedConfig:
    """The model's configuration; ValueError with one sentence where it cannot be had."""
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise ValueError(f"model.path is {path}, and no such folder exists")
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, HFValidationError, ValueError) as error:
        raise ValueError(
            f"model.path is {path}: neither a model folder, nor in the local Hugging Face cache, nor "
            f"to be fetched from the hub ({type(error).__name__})"
        ) from error


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model; ValueError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"model.path is {path}: it holds no tokenizer that loads") from error


def load_policy(
    path: str, dtype: torch.dtype, random_init_seed: int | None = None
) -> PreTrainedModel:
    """The policy in ``dtype`` on the CPU, every parameter trainable.

    With ``random_init_seed`` only the configuration is read and weights are drawn from that seed.
    """
    if random_init_seed is not None:
        config = load_config(path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_init_seed)
            policy = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        try:
            policy = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        except (OSError, ValueError) as error:
            raise ValueError(f"model.path is {path}: its weights do not load ({error})") from error
    return policy.train()


def stop_token_ids(policy_path: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: the tokenizer's end-of-text and those of the model's own settings."""
    stops = {tokenizer.eos_token_id}
    try:
        configured = GenerationConfig.from_pretrained(policy_path).eos_token_id
    except OSError:  # the folder has no generation_config.json
        configured = None
    stops |= set(configured) if isinstance(configured, list) else {configured}
    return tuple(sorted(stop for stop in stops if stop is not None))


def export(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype
) -> None:
    """Write a folder that transformers and vLLM load; it appears whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    weights = {name: tensor.to(dtype) for name, tensor in policy.state_dict().items()}
    policy.save_pretrained(partial, state_dict=weights)
    tokenizer.save_pretrained(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)
