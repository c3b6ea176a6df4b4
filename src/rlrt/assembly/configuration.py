"""Composing a run's configuration, and telling a user in one sentence what is wrong with it."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlrt.errors import RunStoppedError, UserError

PROJECT = Path(__file__).resolve().parents[3]
CONFIGS = PROJECT / "configs"
Made = TypeVar("Made")


def register_resolvers() -> None:
    """The two words that YAML files of this project use beside OmegaConf's own.

    ``${project:models/tiny}``: a path under the project root, whatever the working directory.
    ``${by_kind:{base: 1.0, instruct: 0.5, thinking: 0.2}}``: the value for ``model.kind``.
    """

    def by_kind(values: DictConfig, *, _root_: DictConfig) -> Any:
        kind = _root_.model.kind
        if kind not in values:
            raise ValueError(f"model.kind is {kind}, it must be one of {', '.join(values)}")
        return values[kind]

    OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)
    OmegaConf.register_new_resolver("by_kind", by_kind, replace=True)


def compose(overrides: list[str]) -> DictConfig:
    """The configuration of a run with these overrides; UserError where they do not fit it."""
    register_resolvers()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose("train", overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(first_sentence(error)) from error
    return config


def build(node: DictConfig | None, **arguments: Any) -> Any:
    """Instantiate a ``_target_`` node; what its constructor refuses becomes a UserError."""
    if not node:
        return None
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        raise UserError(first_sentence(error.__cause__ or error)) from error


def checked(make: Callable[..., Made], *arguments: Any, **settings: Any) -> Made:
    """Call ``make``; what it refuses (a setting, a file) becomes a UserError."""
    try:
        return make(*arguments, **settings)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(first_sentence(error)) from error


@contextmanager
def stop_with_a_sentence() -> Iterator[None]:
    """Turn what a user can understand into one line on stderr and a non-zero exit status."""
    try:
        yield
    except UserError as error:
        raise SystemExit(_say(error, 2)) from None
    except RunStoppedError as error:
        raise SystemExit(_say(error, 3)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        sentence = f"the disk is full ({error}); free some space and go on with resume=<run folder>"
        raise SystemExit(_say(sentence, 3)) from None


def _say(sentence: object, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return status


def first_sentence(error: BaseException) -> str:
    """An error's text as one line, with the choices where Hydra lists them."""
    text = str(error).split("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("full_key:", "object_type", "Set the env"))
    ]
    return " ".join(lines) or type(error).__name__
