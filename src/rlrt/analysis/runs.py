"""Run folders read back: their settings, their two tables, and which of them are one method."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlrt.analysis.methods import Method, has_method, leaves, method_names, method_settings
from rlrt.errors import UserError

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
        raise UserError(f"{folder} is no whole run folder: {' and '.join(missing)} not found")
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
