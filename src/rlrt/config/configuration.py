"""Composing a run's configuration, and telling a user in one sentence what is wrong with it."""

import errno
import json
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from rlrt.config.resolvers import PROJECT, register_resolvers
from rlrt.config.types import require_types
from rlrt.errors import RunStoppedError, UserError, error_file, is_rank_zero

CONFIGS = PROJECT / "configs"
SWITCH = "RLRT_TRACEBACK"
REFUSED, STOPPED, INTERRUPTED = 2, 3, 130  # exit statuses
UNKNOWN = re.compile(r"Could not override '([^'@]+)'")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUST_ERROR = re.compile(r"\(os error (\d+)\)")
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
RESOLVING = "ValueError raised while resolving interpolation: "
# of a component, not of a setting: its author needs the traceback
BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError)
Made = TypeVar("Made")


def compose(overrides: list[str], name: str = "train", own_words: Sequence[str] = ()) -> DictConfig:
    """The configuration ``name`` with these overrides; UserError where they do not fit it.

    ``own_words`` are those of the command, to be named beside the settings.
    """
    for word in overrides:
        group, _, choice = word.partition("=")
        if choice == "null" and (CONFIGS / group).is_dir():  # of which Hydra names no group
            raise UserError(f"{group} is null, it must name a file of configs/{group}")
    inside = GlobalHydra.instance().is_initialized()  # of hydra.main, which allows no second one
    try:
        with (
            nullcontext()
            if inside
            else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3")
        ):
            try:
                config = hydra.compose(name, overrides)
            except MissingConfigException as error:
                group, _, choice = str(error.missing_cfg_file).rpartition("/")
                raise UserError(
                    f"{group} is {choice}, it must be one of {', '.join(error.options or ['none'])}"
                ) from error
            except ConfigCompositionException as error:
                raise UserError(_unknown_setting(error, overrides, name, own_words)) from error
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(first_sentence(error)) from error
    return config


def _unknown_setting(
    error: Exception, overrides: list[str], config: str, own_words: Sequence[str]
) -> str:
    """Hydra's report; of a setting that does not exist, what does exist in its place."""
    found = UNKNOWN.match(str(error))
    if found is None:
        return first_sentence(error)
    name = found[1]
    others = [word for word in overrides if word.split("=")[0] != name]
    group, _, last = name.rpartition(".")
    there = OmegaConf.select(hydra.compose(config, others), group) if group else None
    if group == "strategy":
        return (
            f"{name} is no setting: those of a strategy are the trainer's, trainer.strategy.{last}"
        )
    if group and not isinstance(there, DictConfig):
        return f"{name} is no setting: there is no group {group}"
    names = there.keys() if there else [*own_words, *hydra.compose(config, others)]
    choices = ", ".join(str(key) for key in names if not str(key).startswith("_"))
    return f"{last} is no setting{f' of {group}' if group else ''}; allowed: {choices}"


def load_yaml(path: Path) -> DictConfig:
    """The settings of a YAML file, with all interpolations resolved; UserError where it holds none."""
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} is damaged: it holds no settings")
    return config


def leaves(config: DictConfig) -> dict[str, Any]:
    """Every value by its full name; a list is one value."""
    found: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if not isinstance(node, dict):
            found[prefix] = node
            return
        for key, value in node.items():
            walk(value, f"{prefix}.{key}" if prefix else str(key))

    walk(OmegaConf.to_container(config, resolve=True), "")
    return found


def shared_settings(config: DictConfig) -> dict[str, str]:
    """Every setting by its full name, as text that is the same wherever the project lies."""
    values = leaves(config).items()
    return {name: json.dumps(value).replace(str(PROJECT), "") for name, value in values}


def build(node: DictConfig | None, **arguments: Any) -> Any:
    """Instantiate a ``_target_`` node; what its constructor refuses becomes a UserError."""
    if not node:
        return None
    key = require_part(node)
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, BUGS):
            raise error.__cause__ from None
        sentence = first_sentence(error.__cause__ or error)
        raise UserError(sentence if key in sentence else f"{key}: {sentence}") from error


def require_part(node: DictConfig) -> str:
    """The node's name; UserError where a setting of it, or of a part within, has the wrong type."""
    key = str(node._get_full_key(None))
    try:
        settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing, it has no default") from error
    except OmegaConfBaseException as error:
        raise UserError(first_sentence(error)) from error
    _require_types(settings, key)
    return key


def _require_types(settings: Any, key: str) -> None:
    if isinstance(settings, list):
        for number, part in enumerate(settings):
            _require_types(part, f"{key}[{number}]")
    if not isinstance(settings, dict) or "_target_" not in settings:
        return
    try:
        make = pkgutil.resolve_name(settings["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_ cannot be imported: {first_sentence(error)}") from error
    own = {name: value for name, value in settings.items() if not name.startswith("_")}
    require_types(make, own, key)
    for name, value in own.items():
        _require_types(value, f"{key}.{name}")


def checked(make: Callable[..., Made], *arguments: Any, **settings: Any) -> Made:
    """Call ``make``; what it refuses (a setting, a file) becomes a UserError."""
    try:
        return make(*arguments, **settings)
    except (ValueError, OSError) as error:
        raise UserError(first_sentence(error)) from error


@contextmanager
def stop_with_a_sentence(folder: Path | None = None, advice: str = "") -> Iterator[None]:
    """Turn what a user can understand into one line on stderr and a non-zero exit status.

    Of what can be continued the line says how: where a run in ``folder`` has begun, or by ``advice``.
    The traceback of the error that ends that run is kept there until it ends well, by each rank in a
    file of its own; ``RLRT_TRACEBACK=1`` in the environment shows every one at once.
    """
    taken = _has_begun(folder)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        told = _sentence(error, _how_to_go_on(folder, advice))
        ended = told is None or told[1] == STOPPED or (told[1] == REFUSED and not taken)
        kept = _keep_traceback(error, folder) if ended else None
        if told is None:
            raise
        if os.environ.get(SWITCH, "0") not in ("", "0"):
            traceback.print_exception(error)
        sentence, status = told
        raise SystemExit(
            _say(f"{sentence}; traceback in {kept}" if kept else sentence, status)
        ) from None
    if folder is not None and is_rank_zero():
        for path in (folder / "error.txt", *folder.glob("error-rank-*.txt")):
            path.unlink(missing_ok=True)


def _sentence(error: BaseException, going_on: str) -> tuple[str, int] | None:
    """What to say of an error, and the exit status; None of a bug, which speaks by its traceback."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return first_sentence(error), REFUSED
    if isinstance(error, RunStoppedError):
        return str(error), STOPPED
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{going_on}", INTERRUPTED
    trouble = _file_trouble(error)
    return None if trouble is None else (f"{trouble}{going_on}", STOPPED)


def _keep_traceback(error: BaseException, folder: Path | None) -> Path | None:
    """Where the error's traceback is now; None where no run has begun, or the disk is full."""
    if folder is None or not _has_begun(folder):
        return None
    path = folder / error_file()
    try:
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return None
    return path


def _file_trouble(error: BaseException) -> str | None:
    """What the operating system said no to, also as the cause of another library's error; else None.

    An error that came up while another was handled is no consequence of that: it is a bug of its own.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # causes may go in a ring
        told = RUST_ERROR.search(str(cause))  # safetensors has no other way to tell
        number = int(told[1]) if told else getattr(cause, "errno", None)
        if number in DISK_FULL:
            return f"the disk is full ({os.strerror(number)})"
        if isinstance(cause, OSError) and number in UNUSABLE and cause.filename:
            return f"{cause.filename} cannot be used ({cause.strerror})"
        seen.add(id(cause))
        cause = cause.__cause__
    return None


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Where a run ends before it has written anything, take its empty folder away again."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()  # only ever an empty one


def _has_begun(folder: Path | None) -> bool:
    return folder is not None and (folder / "config.yaml").exists()


def _how_to_go_on(folder: Path | None, advice: str) -> str:
    if not _has_begun(folder):
        return f"; {advice}" if advice else ""
    return f"; go on with resume={folder} hydra.run.dir={folder}"


def _say(sentence: object, status: int) -> int:
    if is_rank_zero():  # it tells what stopped another rank, too
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return status


def first_sentence(error: BaseException) -> str:
    """An error's text as one line, with the choices where Hydra lists them."""
    text = str(error).split("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("full_key:", "object_type", "Set the env"))
    ]
    return " ".join(lines).removeprefix(RESOLVING) or type(error).__name__


register_resolvers()
