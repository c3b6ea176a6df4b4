"""What a word of the command line that does not fit most likely means, in one sentence.

Nothing here decides whether a word fits: Hydra and the constructors do.
"""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from rlrt.errors import UserError

# what other tools call a setting, or Lightning's own name for what is set elsewhere here; a setting
# that has the right name in the wrong group needs no entry
SYNONYMS = {
    "adam_beta1": "training.optimization.betas",
    "batch_size": "training.problems_per_update",
    "epochs": "trainer.max_epochs",
    "gradient_accumulation_steps": "training.token_budget",
    "gradient_clip_algorithm": "training.optimization.max_grad_norm",
    "gradient_clip_val": "training.optimization.max_grad_norm",
    "group_size": "training.rollouts_per_problem",
    "gpus": "trainer.devices",
    "lr": "training.optimization.learning_rate",
    "max_completion_length": "training.max_response_tokens",
    "max_length": "training.max_response_tokens",
    "max_new_tokens": "training.max_response_tokens",
    "max_steps": "trainer.max_epochs",
    "max_tokens": "training.max_response_tokens",
    "micro_batch_size": "training.token_budget",
    "num_epochs": "trainer.max_epochs",
    "num_generations": "training.rollouts_per_problem",
    "num_train_epochs": "trainer.max_epochs",
    "output_dir": "hydra.run.dir",
    "per_device_train_batch_size": "training.token_budget",
    "resume_from_checkpoint": "resume",
    "rollouts": "training.rollouts_per_problem",
    "tensor_parallel_size": "engine.tensor_parallel",
    "warmup_ratio": "training.optimization.warmup_steps",
}
REMARKS = {
    "trainer.max_epochs": "an epoch is a rollout step here",
    "training.token_budget": "tokens of a pass; how an update is cut changes no result",
}
# settings of Lightning's trainer that manual optimization has no use for
TRAINER_KEYS = ("gradient_clip_val", "gradient_clip_algorithm", "max_steps")


def check_words(words: Sequence[str], configs: Path) -> None:
    """UserError for a word that cannot be read, or that Hydra would take for something else."""
    for number, word in enumerate(words):
        if word.startswith("~"):
            continue
        name, equals, value = word.partition("=")
        if not equals:
            after = words[number + 1 : number + 3]
            if after and after[0].startswith("="):
                value = after[0][1:] or "".join(after[1:])
                raise UserError(f"{word} {' '.join(after)}: no blanks around =, {word}={value}")
            raise UserError(f"{word} is no setting: each is written name=value")
        if (configs / name).is_dir() and value.startswith("[") and value.endswith("]"):
            choices = value[1:-1].replace(" ", "")
            raise UserError(
                f"{name} is {value}, it must be one of configs/{name}; several runs, one after the "
                f"other: -m {name}={choices}"
            )
        bare = name.lstrip("+")
        if bare.startswith("trainer.") and bare.removeprefix("trainer.") in TRAINER_KEYS:
            raise UserError(f"{bare} has no use here; it is {_meant(bare)}")
        _check_readable(word)


def _check_readable(word: str) -> None:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        name, _, value = word.partition("=")
        quoted = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
        setting = f'{name}="{quoted}"'
        raise UserError(
            f"{word} cannot be read: a text with signs in it goes into two pairs of quotes, "
            f"{shlex.quote(setting)}"
        ) from None


def leaves(settings: Any, prefix: str = "") -> Iterator[str]:
    """The full names of all settings of nested dictionaries."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        yield f"{prefix}{key}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The setting that an unknown ``name`` most likely means, as "; did you mean …?"; or nothing.

    ``known`` are all settings by their full names.
    """
    last = name.rpartition(".")[2]
    if last in SYNONYMS:
        return f"; did you mean {_meant(name)}?"
    known = list(known)
    same = [full for full in known if full.rpartition(".")[2] == last]
    if not same:
        ends = {full.rpartition(".")[2] for full in known}
        close = difflib.get_close_matches(last, sorted(ends), 1, 0.75)
        same = [full for full in known if close and full.rpartition(".")[2] == close[0]]
    group = name.partition(".")[0]
    same.sort(key=lambda full: full.partition(".")[0] != group)
    return f"; did you mean {same[0]}?" if same else ""


def _meant(name: str) -> str:
    meant = SYNONYMS[name.rpartition(".")[2]]
    return f"{meant} ({REMARKS[meant]})" if meant in REMARKS else meant


def elsewhere(name: str, chosen: str, configs: Path) -> str:
    """Which other choices of a setting's group have it, as "; … is a setting of …"; or nothing."""
    group, _, last = name.rpartition(".")
    files = sorted((configs / group).glob("*.yaml")) if group else []
    have = [
        file.stem
        for file in files
        if file.stem != chosen and last in set(OmegaConf.load(file))  # also where it has no value
    ]
    if not have:
        return ""
    return f"; {group} is {chosen}, and {last} is a setting of {group}={' | '.join(have)}"
