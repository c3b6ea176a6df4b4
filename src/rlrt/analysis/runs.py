"""Run folders read back: settings, both tables, and which runs are seeds of one method.

Methods are compared under the same surroundings: a run with another model, other problems or another
batch size is no further seed of the method, and its name says so.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlrt.errors import UserError

PARTS = ("credit", "context", "teacher", "loss", "aggregation", "prompts")
SURROUNDINGS = (  # in the order in which names draw on them
    "model.name",
    "model.path",
    "model",
    "data",
    "training",
    "reward",
    "evaluation",
    "trainer.precision",
)
FREE = (  # of these: what leaves the computed numbers as they are, rounding apart
    "model.accelerator",
    "model.precision",  # the default of trainer.precision
    "model.gradient_checkpointing",
    "model.save_attention",
    "model.kernels",
    "model.attention",
    "training.rollout_steps",  # how long a run is, which may be resumed for more
    "training.token_budget",
    "training.score_all",
    "reward.workers",
    "evaluation.every_n_steps",
)
LONGEST = 32  # characters of a value in a name

Method = dict[str, Any]  # its settings by full name, as in credit.mixing; no nulls


def leaves(settings: Any, name: str = "") -> dict[str, Any]:
    """The values of nested settings by their full names, as in ``a.b`` and ``a.c[0].d``; empty groups
    and lists of plain values are values.
    """
    if isinstance(settings, dict) and (settings or not name):
        prefix = f"{name}." if name else ""
        parts = [leaves(value, f"{prefix}{key}") for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(part, dict | list) for part in settings):
        parts = [leaves(part, f"{name}[{number}]") for number, part in enumerate(settings)]
    else:
        return {name: settings}
    return {key: value for part in parts for key, value in part.items()}


def spelled(value: Any) -> str:
    """A value as a line of YAML spells it."""
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def has_method(config: Any) -> bool:
    """Whether these are settings of a run: their credit names a class by its full name."""
    credit = config.get("credit") if isinstance(config, dict) else None
    target = credit.get("_target_") if isinstance(credit, dict) else None
    return isinstance(target, str) and all(target.split(".")) and "." in target


def method_settings(config: Mapping[str, Any]) -> Method:
    """Of all settings of a run those that make its method, and those of its surroundings; without
    the run's seed, which parts that choose by chance repeat.
    """
    groups = dict.fromkeys(name.partition(".")[0] for name in (*PARTS, *SURROUNDINGS))
    settings = leaves({group: config[group] for group in groups if config.get(group)})
    return {
        name: value
        for name, value in settings.items()
        if value is not None
        and name.rpartition(".")[2] != "seed"
        and name not in FREE
        and _rank(name, (*PARTS, *SURROUNDINGS)) is not None
    }


def method_names(methods: Sequence[Method]) -> list[str]:
    """For each of these settings of methods its name: its credit, how its parts differ from those of
    others with the same credit, and as many of its surroundings as tell it from all others'.
    """
    kinds = [method for i, method in enumerate(methods) if method not in methods[:i]]
    around = _telling_surroundings(kinds)

    def name(method: Method) -> str:
        target = method["credit._target_"]
        alike = [other for other in kinds if other["credit._target_"] == target]
        parts = [
            key
            for key in sorted({key for other in alike for key in other})
            if _rank(key, PARTS) is not None
            and any(other.get(key) != method.get(key) for other in alike)
        ]
        differences = [_spelled_setting(key, method, kinds) for key in (*parts, *around)]
        return " ".join([target.split(".")[-2], *differences])

    names = [name(kind) for kind in kinds]
    names = [  # classes of one name in two packages
        f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    return [names[kinds.index(method)] for method in methods]


def _rank(name: str, groups: Sequence[str]) -> int | None:
    """Number of the first of these groups or settings that a setting belongs to; None: of no one."""
    numbers = (
        number
        for number, group in enumerate(groups)
        if name == group or name.startswith((f"{group}.", f"{group}["))
    )
    return next(numbers, None)


def _telling_surroundings(kinds: Sequence[Method]) -> list[str]:
    """Settings that together tell apart all surroundings that differ, in names few of them: another
    model alone brings some thirty other settings with it.
    """
    ranks = {name: _rank(name, SURROUNDINGS) for kind in kinds for name in kind}
    names = [name for name in ranks if _rank(name, PARTS) is None]
    chosen: list[str] = []
    for name in sorted(names, key=lambda name: ranks[name] or 0):
        if _distinct(kinds, [*chosen, name]) > _distinct(kinds, chosen):
            chosen.append(name)
    return chosen


def _distinct(kinds: Sequence[Method], names: Sequence[str]) -> int:
    """How many different values these settings have together."""
    values = [[kind.get(name) for name in names] for kind in kinds]
    return sum(value not in values[:i] for i, value in enumerate(values))


def _spelled_setting(key: str, method: Method, kinds: Sequence[Method]) -> str:
    """A setting in a name: ``credit.mixing=0.5``, or ``teacher=Live`` for the part of a group.

    Of a long value its end, or else its beginning, where that still tells it from the others'.
    """
    values = list(dict.fromkeys(spelled(kind.get(key)) for kind in kinds))
    value = spelled(method.get(key))
    if key.endswith("._target_"):
        key, value = key.removesuffix("._target_"), value.rpartition(".")[2]
        return f"{key}={value}"
    for cut in (_end, _beginning):
        if len({cut(other) for other in values}) == len(values):
            return f"{key}={cut(value)}"
    return f"{key}={value}"


def _end(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def _beginning(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


FILES = ("config.yaml", "metrics.csv", "evaluation.csv")

Row = dict[str, float]
Curve = dict[int, float]  # rollout step -> value
Methods = dict[str, list["Run"]]


@dataclass(frozen=True)
class Run:
    """One run folder: the settings of its method, and the numeric columns of its two tables."""

    folder: Path
    seed: int
    method: Method
    metrics: list[Row]
    evaluations: list[Row]


def read_numbers(path: Path) -> list[Row]:
    """The rows of a CSV as numbers, empty cells left out; UserError where they are none."""
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise UserError(f"{path} is not a table of numbers ({error})") from error
    if not rows or any("step" not in row for row in rows):
        raise UserError(f"{path} holds no rollout steps")
    return rows


def read_run(folder: Path, unfinished: bool = False) -> Run:
    """A run folder; UserError naming what it lacks, or saying that its run has not ended, unless
    ``unfinished`` ones are welcome.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no run folder: no such folder exists")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no complete run folder: {' and '.join(missing)} not found")
    config = _read_config(folder / "config.yaml")
    metrics, evaluations = (_read_steps(folder / name) for name in FILES[1:])
    done, evaluated = int(metrics[-1]["step"]) + 1, int(evaluations[-1]["step"])
    if not unfinished and (done != evaluated or len(evaluations) < 2):
        raise UserError(
            f"{folder} holds a run that has not ended: {done} rollout steps done, the last "
            f"evaluation after {evaluated}; go on with resume={folder}"
        )
    return Run(folder, config["seed"], method_settings(config), metrics, evaluations)


def _read_steps(path: Path) -> list[Row]:
    """The rows of a table; UserError where one is of no rollout step."""
    rows = read_numbers(path)
    for row in rows:
        if row["step"] < 0 or not row["step"].is_integer():  # NaN and infinity are none
            raise UserError(f"{path} is damaged: it holds a row of step {row['step']:g}")
    return rows


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        leaves(config)  # no end where a group holds itself
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not has_method(config):
        raise UserError(f"{path} is damaged: it holds no settings of a run with credit._target_")
    if type(config.get("seed")) is not int:
        raise UserError(f"{path} is damaged: seed is {config.get('seed')!r}, no whole number")
    return config


def group_runs(runs: Sequence[Run]) -> Methods:
    """The runs of each method by its name, methods in order of appearance.

    UserError where two runs of a method have the same seed: they are not two samples.
    """
    methods: Methods = {}
    for run, method in zip(runs, method_names([run.method for run in runs]), strict=True):
        methods.setdefault(method, []).append(run)
    for method, members in methods.items():
        if len({run.seed for run in members}) < len(members):
            folders = ", ".join(str(run.folder) for run in members)
            raise UserError(f"two runs of {method} have the same seed: {folders}")
    return methods


def score_of(runs: Sequence[Run]) -> str:
    """The column avg@k that all runs share; UserError where they evaluated differently."""
    names = {next((n for n in run.evaluations[0] if n.startswith("avg@")), "") for run in runs}
    if len(names) != 1 or "" in names:
        raise UserError(f"the runs were evaluated by {', '.join(sorted(names))}: not comparable")
    return names.pop()


def curve(rows: Sequence[Row], column: str) -> Curve:
    """A column over rollout steps."""
    return {int(row["step"]): row[column] for row in rows if column in row}


def require_columns(runs: Sequence[Run], columns: Sequence[str]) -> None:
    """UserError naming the first column that a run's metrics.csv lacks in some step."""
    for run in runs:
        for column in columns:
            if len(curve(run.metrics, column)) < len(run.metrics):
                raise UserError(f"{run.folder / 'metrics.csv'} lacks {column}")
