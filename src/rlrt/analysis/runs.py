"""Run folders read back: settings, both tables, and which runs are seeds of one method.

Methods are compared under the same surroundings: a run with another model, other problems or another
batch size is no further seed of the method, and its name says so.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrt.analysis.pages import visible
from rlrt.config.compose import load_settings
from rlrt.errors import UserError

METHOD = ("credit", "context", "teacher", "loss", "aggregation", "prompts")
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
NEUTRAL = (  # of these: what leaves the computed numbers as they are, rounding apart
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
FILES = ("config.yaml", "metrics.csv", "evaluation.csv")
ABSENT = "–"  # of a setting that a run does not have

Method = dict[str, Any]  # its settings by full name, as in credit.mixing; no nulls
Settings = dict[str, str]  # by full name, as a report shows them
Row = dict[str, float]
Curve = dict[int, float]  # rollout step -> value
Methods = dict[str, list["Run"]]


def leaves(settings: Any, name: str = "") -> dict[str, Any]:
    """The values of nested settings by their full names, as in ``a.b`` and ``a.c[0].d``; empty groups
    and lists of plain values are values.
    """
    if isinstance(settings, dict) and (settings or not name):
        prefix = f"{name}." if name else ""
        children = [leaves(value, f"{prefix}{key}") for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(item, dict | list) for item in settings):
        children = [leaves(item, f"{name}[{number}]") for number, item in enumerate(settings)]
    else:
        return {name: settings}
    return {key: value for child in children for key, value in child.items()}


def as_yaml(value: Any) -> str:
    """A value as a line of YAML spells it."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def has_method(config: Mapping[str, Any]) -> bool:
    """Whether these are settings of a run: their credit names a class by its full name."""
    credit = config.get("credit")
    target = credit.get("_target_") if isinstance(credit, dict) else None
    return isinstance(target, str) and all(target.split(".")) and "." in target


def method_settings(config: Mapping[str, Any]) -> Method:
    """Of all settings of a run those that make its method, and those of its surroundings; without
    the run's seed, which parts that choose by chance repeat.
    """
    groups = dict.fromkeys(name.partition(".")[0] for name in (*METHOD, *SURROUNDINGS))
    settings = leaves({group: config[group] for group in groups if config.get(group)})
    return {
        name: value
        for name, value in settings.items()
        if value is not None
        and name.rpartition(".")[2] != "seed"
        and name not in NEUTRAL
        and _rank(name, (*METHOD, *SURROUNDINGS)) is not None
    }


def method_names(methods: Sequence[Method]) -> list[str]:
    """For each of these settings of methods its name: its credit, how its parts differ from those of
    others with the same credit, and as many of its surroundings as tell it from all others'.
    """
    kinds = [method for i, method in enumerate(methods) if method not in methods[:i]]
    around = _distinguishing_surroundings(kinds)

    def name(method: Method) -> str:
        target = method["credit._target_"]
        alike = [other for other in kinds if other["credit._target_"] == target]
        differing = [
            key
            for key in sorted({key for other in alike for key in other})
            if _rank(key, METHOD) is not None
            and any(other.get(key) != method.get(key) for other in alike)
        ]
        words = [_setting_in_name(key, method, kinds) for key in (*differing, *around)]
        return " ".join([target.split(".")[-2], *words])

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


def _distinguishing_surroundings(kinds: Sequence[Method]) -> list[str]:
    """Settings that together tell apart all surroundings that differ, in names few of them: another
    model alone brings some thirty other settings with it.
    """

    def distinct(names: Sequence[str]) -> int:
        values = [[kind.get(name) for name in names] for kind in kinds]
        return sum(value not in values[:i] for i, value in enumerate(values))

    ranks = {name: _rank(name, SURROUNDINGS) for kind in kinds for name in kind}
    names = [name for name in ranks if _rank(name, METHOD) is None]
    chosen: list[str] = []
    for name in sorted(names, key=lambda name: ranks[name] or 0):
        if distinct([*chosen, name]) > distinct(chosen):
            chosen.append(name)
    return chosen


def _setting_in_name(key: str, method: Method, kinds: Sequence[Method]) -> str:
    """A setting in a name: ``credit.mixing=0.5``, or ``teacher=Live`` for the part of a group.

    Of a long value its end, or else its beginning, where that still tells it from the others'.
    """
    value = as_yaml(method.get(key))
    if key.endswith("._target_"):
        return f"{key.removesuffix('._target_')}={value.rpartition('.')[2]}"
    values = {as_yaml(kind.get(key)) for kind in kinds}
    cuts: tuple[Callable[[str], str], ...] = (
        lambda text: text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}",
        lambda text: text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…",
    )
    for cut in cuts:
        if len(set(map(cut, values))) == len(values):
            return f"{key}={cut(value)}"
    return f"{key}={value}"


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
    path = folder / FILES[0]
    config = load_settings(path)
    if not has_method(config):
        raise UserError(f"{path} is damaged: it holds no settings of a run with credit._target_")
    if type(config.get("seed")) is not int:
        raise UserError(f"{path} is damaged: seed is {config.get('seed')!r}, no whole number")
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


@dataclass(frozen=True)
class ReportedRun:
    """One run folder as a report reads it, ended or not. What could not be read is empty and stands in
    ``notes``.
    """

    folder: Path
    name: str  # of its method and its seed
    method: str
    config: dict[str, Any]
    settings: Settings
    metrics: list[Row]
    evaluations: list[Row]
    notes: tuple[str, ...]

    @property
    def done(self) -> int:
        """Rollout steps of which metrics.csv has a row, those before a resume included."""
        return int(self.metrics[-1]["step"]) + 1 if self.metrics else 0

    @property
    def planned(self) -> int | None:
        """Rollout steps that the settings ask for."""
        trainer = self.config.get("trainer")
        steps = trainer.get("max_epochs") if isinstance(trainer, dict) else None
        return steps if isinstance(steps, int) else None

    @property
    def ended(self) -> bool:
        """All steps are done, and the evaluation after the last or the export is there."""
        if not self.done or (self.planned is not None and self.done < self.planned):
            return False
        last = self.evaluations[-1]["step"] if len(self.evaluations) > 1 else None
        return last == self.done or (self.folder / "export" / "config.json").is_file()


def flat(settings: Any) -> Settings:
    """Nested settings by their full names, each value as one line of text."""
    return {
        visible(name, kept=""): visible(as_yaml(value), kept="")
        for name, value in leaves(settings).items()
    }


def differences(settings: Sequence[Settings]) -> dict[str, list[str]]:
    """The settings whose values are not the same in all of these, by name; ABSENT where one has none."""
    names = dict.fromkeys(name for one in settings for name in one)
    rows = {name: [one.get(name, ABSENT) for one in settings] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def by_method(
    rows: dict[str, list[str]], members: Sequence[Sequence[int]]
) -> dict[str, list[list[str]]]:
    """For each setting and method the value that its runs agree on, or else that of each of them;
    ``members`` are the numbers of each method's runs.
    """

    def values(row: Sequence[str], runs: Sequence[int]) -> list[str]:
        own = [row[run] for run in runs]
        return own if len(set(own)) > 1 else own[:1]

    return {name: [values(row, runs) for runs in members] for name, row in rows.items()}


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """The runs of these folders, each folder once; UserError where one is no run folder at all.

    Each has the name of its method and its seed; where two would be called the same, their folders
    stand in their names. A method that is not known is called by the run's folder.
    """
    distinct: dict[Path, Path] = {}
    for folder in folders:
        distinct.setdefault(folder.resolve(), folder)
    contents = [_read_leniently(folder) for folder in distinct.values()]
    known = [config for config, *_ in contents if has_method(config)]
    method_of = iter(method_names([method_settings(config) for config in known]))
    methods = [
        visible(next(method_of) if has_method(config) else path.name, kept="")
        for path, (config, *_) in zip(distinct, contents, strict=True)
    ]
    names = []
    for method, (config, *_) in zip(methods, contents, strict=True):
        seed = config.get("seed")
        names.append(method if seed is None else f"{method}, seed {visible(seed, kept='')}")
    runs = []
    for (path, folder), method, name, content in zip(
        distinct.items(), methods, names, contents, strict=True
    ):
        short = visible("/".join(path.parts[-2:]), kept="")
        full = f"{name} ({short})" if names.count(name) > 1 and name != short else name
        config, metrics, evaluations, notes = content
        settings = flat(config) if config else {}
        runs.append(
            ReportedRun(folder, full, method, config, settings, metrics, evaluations, tuple(notes))
        )
    return runs


def _read_leniently(folder: Path) -> tuple[dict[str, Any], list[Row], list[Row], list[str]]:
    """Settings and both tables, each empty where it cannot be read, and sentences on what is not there.

    UserError where nothing of a run is there.
    """
    label = visible(folder, kept="")
    if not folder.is_dir():
        raise UserError(f"{label} is no run folder: no such folder exists")
    notes: list[str] = []
    config: dict[str, Any] = _or_note(load_settings, folder / FILES[0], notes) or {}
    metrics, evaluations = (
        _ordered(_or_note(read_numbers, folder / name, notes) or [], name, notes)
        for name in FILES[1:]
    )
    records = any((folder / "rollouts").glob("step=*.parquet"))
    if not (metrics or records or {"credit", "training"} <= config.keys()):
        reasons = "; ".join([*notes, "it holds no records of rollouts"])
        raise UserError(f"{label} is no run folder: {reasons}")
    return config, metrics, evaluations, notes


def _or_note(read: Callable[[Path], Any], path: Path, notes: list[str]) -> Any:
    """What is read of a file; None, and a note, where it is not there or damaged."""
    if not path.is_file():
        notes.append(f"{path.name} is not there")
        return None
    try:
        return read(path)
    except UserError as error:
        notes.append(visible(str(error).replace(str(path), path.name), kept=""))
        return None


def _ordered(rows: list[Row], name: str, notes: list[str]) -> list[Row]:
    """The rows in the order of their steps; those without a step that can be drawn are left out."""
    by_step = {row["step"]: row for row in rows if 0 <= row["step"] < math.inf}
    if left_out := len(rows) - len(by_step):
        notes.append(f"{name} holds {left_out} rows without a step of their own, left out")
    return [by_step[step] for step in sorted(by_step)]
