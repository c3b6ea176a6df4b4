"""The border to Hydra: a configuration composed, and a component built from its node.

All that a user can get wrong here ends in a ``UserError``, one sentence.
"""

import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

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

from rlrt.config.mistakes import check_words, elsewhere, leaves, suggestion
from rlrt.config.own_model import expand_own_model
from rlrt.errors import DISK_FULL, UserError, one_line
from rlrt.validation import check_settings

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]
# An installed package holds configs/ and models/ itself; in a checkout they stand at its root.
PROJECT = PACKAGE if (PACKAGE / "configs").is_dir() else CHECKOUT
CONFIGS = PROJECT / "configs"
UNKNOWN = re.compile(r"Could not override '([^'@]+)'")
# of a component, not of a setting: its author needs the traceback
BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError)
# modules of constructors that stored configurations may name by an older name
MOVED = {
    "rlrt.assembly.settings": "rlrt.config.components",
    "rlrt.config.schema": "rlrt.config.components",
    "rlrt.data.tables": "rlrt.data.sources",
    "rlrt.evaluation.evaluator": "rlrt.training.evaluator",
    "rlrt.evaluation.sampling": "rlrt.evaluation.plan",
    "rlrt.loss.aggregation": "rlrt.loss.objective",
    "rlrt.loss.cispo": "rlrt.loss.policy_loss",
    "rlrt.loss.gspo": "rlrt.loss.policy_loss",
    "rlrt.loss.surrogate": "rlrt.loss.policy_loss",
    "rlrt.training.strategy": "rlrt.training.module",
}
RENAMED = {"JsonlProblems": "FileProblems"}  # constructors


def compose(
    overrides: list[str], name: str = "train", command_options: Sequence[str] = ()
) -> DictConfig:
    """The configuration ``name`` with these overrides; UserError where they do not fit it.

    ``command_options`` are those of the command, to be named beside the settings.
    """
    check_words(overrides, CONFIGS)
    overrides, _ = expand_own_model(overrides, CONFIGS)
    for word in overrides:
        group, _, choice = word.partition("=")
        if choice == "null" and (CONFIGS / group).is_dir():  # of which Hydra names no group
            raise UserError(f"{group} is null, it must name a file of configs/{group}")
    within_hydra: AbstractContextManager[Any] = nullcontext()
    if (
        not GlobalHydra.instance().is_initialized()
    ):  # hydra.main has done it, and allows no second one
        within_hydra = hydra.initialize_config_dir(str(CONFIGS), version_base="1.3")
    try:
        with within_hydra:
            try:
                config = hydra.compose(name, overrides)
            except MissingConfigException as error:
                group, _, choice = str(error.missing_cfg_file).rpartition("/")
                # Hydra takes what stands before a slash for a part of the group's name
                word = next((word for word in overrides if word.endswith(f"/{choice}")), "")
                group, _, choice = word.partition("=") if "=" in word else (group, "", choice)
                known = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
                known = known or list(error.options or ["none"])
                also = ", a folder or a name on the hub" if group == "model" else ""
                raise UserError(
                    f"{group} is {choice}, it must be one of {', '.join(known)}{also}"
                ) from error
            except ConfigCompositionException as error:
                raise UserError(
                    _unknown_setting(error, overrides, name, command_options)
                ) from error
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(one_line(error)) from error
    return config


def _unknown_setting(
    error: Exception, overrides: list[str], config: str, command_options: Sequence[str]
) -> str:
    """Hydra's report; of a setting that does not exist, what does exist in its place."""
    unknown = UNKNOWN.match(str(error))
    if unknown is None:
        return one_line(error)
    name = unknown[1]
    group, _, last = name.rpartition(".")
    if group == "strategy":
        return (
            f"{name} is no setting: those of a strategy are the trainer's, trainer.strategy.{last}"
        )
    others = [word for word in overrides if word.split("=")[0] != name]
    known = hydra.compose(config, others, return_hydra_config=True)
    chosen = known.hydra.runtime.choices
    known = OmegaConf.masked_copy(known, [str(key) for key in known if key != "hydra"])
    settings = OmegaConf.select(known, group) if group else known
    meant = suggestion(name, leaves(OmegaConf.to_container(known)))
    if not isinstance(settings, DictConfig):
        return f"{name} is no setting: there is no group {group}{meant}"
    names = settings.keys() if group and settings else [*command_options, *known]
    choices = ", ".join(str(key) for key in names if not str(key).startswith("_"))
    meant = elsewhere(name, chosen[group], CONFIGS) or meant if group in chosen else meant
    return f"{last} is no setting{f' of {group}' if group else ''}; allowed: {choices}{meant}"


def load_yaml(path: Path) -> DictConfig:
    """The settings of a YAML file, with all interpolations resolved; UserError where it holds none.

    A constructor that has moved is named where it is now.
    """
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} is damaged: it holds no settings")
    _rename_moved(config)
    return config


def _rename_moved(node: DictConfig) -> None:
    for key, value in node.items():
        if isinstance(value, DictConfig):
            _rename_moved(value)
        elif key == "_target_" and isinstance(value, str):  # in a damaged file it may be anything
            module, _, name = value.rpartition(".")
            name = RENAMED.get(name, name)
            node[key] = f"{MOVED.get(module, module)}.{name}" if module else name


def load_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file as plain mappings, lists and values; UserError as in ``load_yaml``."""
    settings: Any = OmegaConf.to_container(load_yaml(path))
    return dict(settings)


def flatten(config: DictConfig) -> dict[str, Any]:
    """Every value by its full name; a list is one value."""
    values: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if not isinstance(node, dict):
            values[prefix] = node
            return
        for key, value in node.items():
            walk(value, f"{prefix}.{key}" if prefix else str(key))

    walk(OmegaConf.to_container(config, resolve=True), "")
    return values


def shared_settings(config: DictConfig) -> dict[str, str]:
    """Every setting by its full name, as text that is the same wherever the project lies."""
    values = flatten(config).items()
    return {name: json.dumps(value).replace(str(PROJECT), "") for name, value in values}


def build(node: DictConfig | None, **arguments: Any) -> Any:
    """Instantiate a ``_target_`` node; what its constructor refuses becomes a UserError."""
    if not node:
        return None
    key = check_node(node)
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, BUGS):
            raise error.__cause__ from None
        sentence = one_line(error.__cause__ or error)
        raise UserError(sentence if key in sentence else f"{key}: {sentence}") from error


def check_node(node: DictConfig) -> str:
    """The node's full name; UserError where a setting of it, or of a node within, does not fit."""
    key = str(node._get_full_key(None))
    try:
        settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing, it has no default") from error
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    _check_settings_within(settings, key)
    return key


def _check_settings_within(settings: Any, key: str) -> None:
    if isinstance(settings, list):
        for number, item in enumerate(settings):
            _check_settings_within(item, f"{key}[{number}]")
    if not isinstance(settings, dict) or "_target_" not in settings:
        return
    try:
        make = pkgutil.resolve_name(settings["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_ cannot be imported: {one_line(error)}") from error
    arguments = {name: value for name, value in settings.items() if not name.startswith("_")}
    with user_errors():
        check_settings(make, arguments, key)
    for name, value in arguments.items():
        _check_settings_within(value, f"{key}.{name}")


@contextmanager
def user_errors() -> Iterator[None]:
    """Within the block, or the function it decorates, a refused setting or file is a UserError."""
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise  # no setting is wrong: the run goes on once there is room
        raise UserError(one_line(error)) from error


def _by_kind(values: DictConfig, *, _root_: DictConfig) -> Any:
    kind = _root_.model.kind
    if kind not in values:
        raise ValueError(f"model.kind is {kind}, it must be one of {', '.join(values)}")
    return values[kind]


def _run_name(experiment: str | None, credit: str, model: str) -> str:
    return f"{credit}_{model}" if experiment in (None, "null") else f"{experiment}_{model}"


def _resumed(resume: str | None, new: str) -> str:
    is_run = resume not in (None, "null") and (Path(str(resume)) / "config.yaml").is_file()
    return str(resume) if is_run else new


def _share(share: float, count: int) -> int:
    return max(1, round(share * count))


RESOLVERS: dict[str, Callable[..., Any]] = {
    # ${project:models/tiny}: a path under the project root, whatever the working directory
    "project": lambda path: str(PROJECT / path),
    # ${by_kind:{base: 1.0, instruct: 0.5, thinking: 0.2}}: the value for model.kind
    "by_kind": _by_kind,
    # ${run_name:<experiment>,<credit>,<model>}: the experiment, or credit and model without one
    "run_name": _run_name,
    # ${share:0.2,${training.max_response_tokens}}: so much of a count, rounded, at least 1
    # ${resumed:${resume},<new>}: the run folder that resume is, else <new>
    "resumed": _resumed,
    "share": _share,
}
for resolver_name, resolver in RESOLVERS.items():
    OmegaConf.register_new_resolver(resolver_name, resolver, replace=True)
