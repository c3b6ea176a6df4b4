"""A policy that lies somewhere on the disk or on the hub, by the word that a user has for it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel

from rlrt.config.compose import CONFIGS, compose, flatten, load_yaml, user_errors
from rlrt.errors import UserError
from rlrt.model.load import load_policy, policy_folder
from rlrt.training.checkpoint import (
    PATTERN,
    SUFFIX,
    AtomicCheckpointIO,
    find_checkpoint,
    run_folder,
)
from rlrt.training.exports import BY_STEP, FINAL, exports_by_step, read_origin

PREFIX = "policy."  # of the policy's tensors in a checkpoint
# what reading a file may raise that is no checkpoint of a run
DAMAGE = (
    UnpicklingError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)
USED = (  # settings of a run that its evaluations and analyses read
    "seed", "data._target_", "engine._target_", "reward._target_", "credit._target_",
    "prompts._target_", "model.path", "model.random_init_seed", "training.temperature",
    "training.token_budget", "training.max_prompt_tokens", "training.max_response_tokens",
    "training.rollouts_per_problem",
)  # fmt: skip


@dataclass(frozen=True)
class StoredPolicy:
    """Where a policy's shape, tokenizer and weights are; ``config`` is that of the run that made it.

    ``folder`` holds configuration and tokenizer, and the weights where there is no ``checkpoint``; it
    is a name on the hub where ``revision`` is a branch, tag or commit there.
    """

    name: str
    folder: str
    checkpoint: Path | None
    config: DictConfig | None
    revision: str | None = None

    @user_errors()
    def local_folder(self, weights: bool = False) -> str:
        """The folder on this machine, with the weights that are in it where those are asked for.

        UserError where it is nowhere, or holds something else.
        """
        return policy_folder(self.folder, weights, "model", self.revision)

    @user_errors()
    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        """The policy on the CPU; UserError where its weights do not load."""
        if self.checkpoint is None:
            return load_policy(self.local_folder(weights=True), dtype)
        seed = self.config.model.random_init_seed if self.config is not None else None
        # of the weights that it began with nothing is left
        policy = load_policy(self.local_folder(weights=seed is None), dtype, seed)
        weights = self._checkpoint_weights()
        try:
            policy.load_state_dict(weights)
        except RuntimeError as error:  # names or shapes that differ, or no tensors
            raise UserError(
                f"the weights of {self.checkpoint} do not fit the model at {self.folder} "
                f"(model.path): it is not the one that the run began with"
            ) from error
        return policy

    def digest(self) -> str:
        """Of the weights' bytes: two policies with the same digest are the same."""
        if self.checkpoint is not None:
            is_folder = self.checkpoint.is_dir()
            files = sorted(self.checkpoint.iterdir()) if is_folder else [self.checkpoint]
        else:
            files = sorted(Path(self.local_folder(weights=True)).glob("*.safetensors"))
        sums = []
        for path in filter(Path.is_file, files):
            with path.open("rb") as file:
                sums.append(hashlib.file_digest(file, "blake2b").hexdigest())
        return hashlib.blake2b("".join(sums).encode(), digest_size=8).hexdigest()

    def _checkpoint_weights(self) -> dict[str, Any]:
        assert self.checkpoint is not None
        try:
            state = AtomicCheckpointIO().load_checkpoint(self.checkpoint)["state_dict"]
            return {
                name.removeprefix(PREFIX): tensor
                for name, tensor in state.items()
                if name.startswith(PREFIX)
            }
        except DAMAGE as error:
            raise UserError(
                f"{self.checkpoint} is no checkpoint of a run ({type(error).__name__})"
            ) from error


@user_errors()
def find_policy(word: str, setting: str = "model") -> StoredPolicy:
    """A preset's name, a run folder, one of its checkpoints or exports, a model folder, or a name on
    the hub.

    Of a run folder the export or checkpoint that most rollout steps have made, an export where both
    are of one step; what the files' dates are has no part in it. UserError where it is nothing of
    these, or an export of a run that does not say its step. A hub repository is fetched when it is
    loaded.
    """
    path = Path(word).expanduser()
    if (CONFIGS / "model" / f"{word}.yaml").is_file():
        preset = compose([f"model={word}"]).model
        return StoredPolicy(word, str(preset.path), None, None, revision_of(preset))
    if path.is_dir() and (path / "config.yaml").is_file() and path.suffix != SUFFIX:
        return _last_policy(path)
    if path.exists() and path.suffix == SUFFIX:
        checkpoint = find_checkpoint(path)
        config = read_config(run_folder(path))
        name = f"{_name(run_folder(path))}/{path.stem}"
        return StoredPolicy(
            name, str(config.model.path), checkpoint, config, revision_of(config.model)
        )
    if path.is_dir():
        policy_folder(str(path), weights=False, setting="model")
        run = _run_of(path)
        if run is None:
            return StoredPolicy(_name(path), word, None, None)
        read_origin(path)
        name = _name(run) if path.name == FINAL else f"{_name(run)}/{BY_STEP}/{path.name}"
        return StoredPolicy(name, word, None, read_config(run))
    if word.count("/") == 1 and not word.startswith((".", "/", "~")):
        name, _, revision = word.partition("@")
        return StoredPolicy(word, name, None, None, revision or None)
    presets = ", ".join(sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml")))
    raise UserError(
        f"{setting} is {word}, and no such run, checkpoint or model folder exists; allowed: one of these, "
        f"a name on the hub such as Qwen/Qwen3-4B-Base (of a revision: <name>@<revision>), or a preset "
        f"({presets})"
    )


def _last_policy(run: Path) -> StoredPolicy:
    config, exports = read_config(run), exports_by_step(run)
    exported = max(exports, default=-1)
    saved = max(map(_step_of, (run / "checkpoints").glob(PATTERN)), default=-1)
    if saved > exported:
        path, checkpoint = str(config.model.path), find_checkpoint(run)
        return StoredPolicy(_name(run), path, checkpoint, config, revision_of(config.model))
    if not exports:
        raise UserError(f"{run} holds a run without any weights yet: no checkpoint, no export")
    return StoredPolicy(_name(run), str(exports[exported]), None, config)


def _run_of(export: Path) -> Path | None:
    """The run folder that a model folder is an export of; None for any other model folder."""
    export = export.resolve()
    run = export.parent if export.name == FINAL else export.parent.parent
    exported = export.name == FINAL or export.parent.name == BY_STEP
    return run if exported and (run / "config.yaml").is_file() else None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))


@user_errors()
def policies_by_step(folder: Path) -> dict[int, str]:
    """The words for ``find_policy`` of a run's policies, by the rollout steps that made them.

    So each is the one that sampled the step of its number: an export, which holds what the engine was
    given, or a checkpoint that is left. Step 0 is what the run began with; where its weights were
    drawn at random it is there only as an export.
    """
    config = read_config(folder)
    words = {} if config.model.random_init_seed is not None else {0: initial_policy(config)}
    words |= {_step_of(path): str(path) for path in (folder / "checkpoints").glob(PATTERN)}
    words |= {step: str(path) for step, path in exports_by_step(folder).items()}
    return dict(sorted(words.items()))


def initial_policy(config: DictConfig) -> str:
    """The word for ``find_policy`` of the policy that a run of this configuration begins with."""
    path, revision = str(config.model.path), revision_of(config.model)
    return path if revision is None else f"{path}@{revision}"


def revision_of(model: DictConfig) -> str | None:
    """At which commit, branch or tag a run takes its model from the hub; null: the main branch's last."""
    revision = model.get("commit") or model.get("revision")
    return None if revision is None else str(revision)


def read_config(folder: Path) -> DictConfig:
    """The configuration of a run folder; UserError where it has none, or one that is damaged or of
    another format.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: it holds no config.yaml")
    config = load_yaml(path)
    settings = flatten(config)
    if lacking := [name for name in USED if name not in settings]:
        raise UserError(f"{path} is of another format: it lacks {', '.join(lacking)}")
    return config


def _name(folder: Path) -> str:
    """The last two words of a run folder's path, as in rlrt_tiny/2026-11-21_10-00-00."""
    return "/".join(folder.resolve().parts[-2:])
