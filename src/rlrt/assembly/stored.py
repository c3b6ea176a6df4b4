"""A policy that lies somewhere on the disk or on the hub, by the word that a user has for it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedModel
from yaml import YAMLError

from rlrt.assembly.configuration import CONFIGS, checked, compose
from rlrt.errors import UserError
from rlrt.model.load import load_policy, policy_folder
from rlrt.training.checkpoint import AtomicCheckpointIO, find_checkpoint, run_folder
from rlrt.training.checkpoint_files import SUFFIX

PREFIX = "policy."  # of the policy's tensors in a checkpoint


@dataclass(frozen=True)
class StoredPolicy:
    """Where a policy's shape, tokenizer and weights are; ``config`` is that of the run that made it.

    ``folder`` holds configuration and tokenizer, and the weights where there is no ``checkpoint``.
    """

    name: str
    folder: str
    checkpoint: Path | None
    config: DictConfig | None

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        """The policy on the CPU; UserError where its weights do not load."""
        if self.checkpoint is None:
            return checked(load_policy, checked(policy_folder, self.folder), dtype)
        seed = self.config.model.random_init_seed if self.config is not None else None
        policy = checked(load_policy, checked(policy_folder, self.folder), dtype, seed)
        policy.load_state_dict(self._checkpoint_weights())
        return policy

    def digest(self) -> str:
        """Of the weights' bytes: two policies with the same digest are the same."""
        if self.checkpoint is not None:
            whole = self.checkpoint.is_dir()
            files = sorted(self.checkpoint.iterdir()) if whole else [self.checkpoint]
        else:
            files = sorted(Path(checked(policy_folder, self.folder)).glob("*.safetensors"))
        sums = []
        for path in files:
            with path.open("rb") as file:
                sums.append(hashlib.file_digest(file, "blake2b").hexdigest())
        return hashlib.blake2b("".join(sums).encode(), digest_size=8).hexdigest()

    def _checkpoint_weights(self) -> dict[str, Any]:
        assert self.checkpoint is not None
        try:
            state = AtomicCheckpointIO().load_checkpoint(self.checkpoint)["state_dict"]
        except (RuntimeError, UnpicklingError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.checkpoint} is no checkpoint of a run ({type(error).__name__})"
            ) from error
        return {
            name.removeprefix(PREFIX): tensor
            for name, tensor in state.items()
            if name.startswith(PREFIX)
        }


def find_policy(word: str) -> StoredPolicy:
    """A preset's name, a run folder, one of its checkpoints, a model folder, or a name on the hub.

    Of a run folder its export, or while it has none its newest checkpoint. UserError where it is
    nothing of these. A hub repository is fetched when it is loaded.
    """
    path = Path(word).expanduser()
    if (CONFIGS / "model" / f"{word}.yaml").is_file():
        return StoredPolicy(word, str(compose([f"model={word}"]).model.path), None, None)
    if path.is_dir() and (path / "config.yaml").is_file() and path.suffix != SUFFIX:
        config = read_config(path)
        if (path / "export" / "config.json").is_file():
            return StoredPolicy(_name(path), str(path / "export"), None, config)
        newest = find_checkpoint(path)
        if newest is None:
            raise UserError(f"{path} holds a run without any weights yet: no checkpoint, no export")
        return StoredPolicy(_name(path), str(config.model.path), newest, config)
    if path.exists() and path.suffix == SUFFIX:
        checkpoint = find_checkpoint(path)
        config = read_config(run_folder(path))
        name = f"{_name(run_folder(path))}/{path.stem}"
        return StoredPolicy(name, str(config.model.path), checkpoint, config)
    if path.is_dir():
        checked(policy_folder, str(path), weights=False, setting="model")
        if path.name == "export" and (path.parent / "config.yaml").is_file():
            return StoredPolicy(_name(path.parent), word, None, read_config(path.parent))
        return StoredPolicy(_name(path), word, None, None)
    if word.count("/") == 1 and not word.startswith((".", "/", "~")):
        return StoredPolicy(word, word, None, None)
    presets = ", ".join(sorted(preset.stem for preset in (CONFIGS / "model").glob("*.yaml")))
    raise UserError(
        f"model is {word}, and no such run, checkpoint or model folder exists; allowed: one of these, "
        f"a name on the hub such as Qwen/Qwen3-4B-Base, or a preset ({presets})"
    )


def read_config(folder: Path) -> DictConfig:
    """The configuration of a run folder; UserError where it has none or it is damaged."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: it holds no config.yaml")
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(config, DictConfig) or not {"model", "credit", "training"} <= config.keys():
        raise UserError(f"{path} is damaged: it holds no settings of a run")
    return config


def _name(folder: Path) -> str:
    """The last two words of a run folder's path, as in rlrt_tiny/2026-11-21_10-00-00."""
    return "/".join(folder.resolve().parts[-2:])
