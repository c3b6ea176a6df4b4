"""Run folders read back: their settings, their two tables, and which of them are one method."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlrt.errors import UserError

FILES = ("config.yaml", "metrics.csv", "evaluation.csv")
METHOD = ("credit", "context", "teacher", "loss", "aggregation")  # groups that make a method

Row = dict[str, float]
Curve = dict[int, float]  # rollout step -> value
Methods = dict[str, list["Run"]]


@dataclass(frozen=True)
class Run:
    """One run folder: the settings of its method, and the numeric columns of its two tables."""

    folder: Path
    seed: int
    method: dict[str, Any]  # by full name, as in credit.mixing
    metrics: list[Row]
    evaluations: list[Row]


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV as numbers, empty cells left out; UserError where they are none."""
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
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
        raise UserError(f"{folder} is no whole run folder: {' and '.join(missing)} not found")
    config = _read_config(folder / "config.yaml")
    metrics, evaluations = (read_table(folder / name) for name in FILES[1:])
    done, evaluated = int(metrics[-1]["step"]) + 1, int(evaluations[-1]["step"])
    if not unfinished and (done != evaluated or len(evaluations) < 2):
        raise UserError(
            f"{folder} holds a run that has not ended: {done} rollout steps done, the last "
            f"evaluation after {evaluated}; go on with resume={folder}"
        )
    method = {
        f"{group}.{name}": value
        for group in METHOD
        for name, value in _without_seeds(config.get(group) or {}).items()
    }
    return Run(folder, int(config["seed"]), method, metrics, evaluations)


def _without_seeds(settings: Any) -> Any:
    """Settings without the run's seed, which parts that choose by chance repeat."""
    if isinstance(settings, list):
        return [_without_seeds(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    return {name: _without_seeds(value) for name, value in settings.items() if name != "seed"}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(config, dict) or not {"seed", "credit"} <= config.keys():
        raise UserError(f"{path} is damaged: it holds no settings of a run")
    return config


def group_runs(runs: Sequence[Run]) -> Methods:
    """Methods in order of appearance, named by credit and by the settings that tell them apart.

    UserError where two runs of a method have the same seed: they are not two samples.
    """
    kinds: list[dict[str, Any]] = []
    for run in runs:
        if run.method not in kinds:
            kinds.append(run.method)

    def name(method: dict[str, Any]) -> str:
        target = method["credit._target_"]
        alike = [other for other in kinds if other["credit._target_"] == target]
        differing = [
            _shown(key, method.get(key))
            for key in sorted({key for other in alike for key in other})
            if any(other.get(key) != method.get(key) for other in alike)
        ]
        return " ".join([target.split(".")[-2], *differing])

    methods = {name(kind): [run for run in runs if run.method == kind] for kind in kinds}
    for method, members in methods.items():
        if len({run.seed for run in members}) < len(members):
            folders = ", ".join(str(run.folder) for run in members)
            raise UserError(f"two runs of {method} have the same seed: {folders}")
    return methods


def _shown(key: str, value: Any) -> str:
    """A setting in a name: ``credit.mixing=0.5``, or ``teacher=Live`` for the part of a group."""
    if key.endswith("._target_"):
        return f"{key.removesuffix('._target_')}={str(value).rpartition('.')[2]}"
    return f"{key}={value}"


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
