"""Run folders as a report reads them: whatever is there, and a sentence for whatever is not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rlrt.analysis.pages import visible
from rlrt.analysis.runs import (
    Row,
    has_method,
    leaves,
    method_names,
    method_settings,
    read_numbers,
    spelled,
)
from rlrt.errors import UserError

ABSENT = "–"  # of a setting that a run does not have

Settings = dict[str, str]  # by full name, as in credit.mixing


def flat(settings: Any) -> Settings:
    """Nested settings by their full names, each value as one line of text."""
    return {
        visible(name, kept=""): visible(spelled(value), kept="")
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


PARTS = ("config.yaml", "metrics.csv", "evaluation.csv", "rollouts")


@dataclass(frozen=True)
class ReportedRun:
    """One run folder, ended or not. What could not be read is empty and stands in ``notes``."""

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
        steps = _within(self.config, "trainer.max_epochs")
        return steps if isinstance(steps, int) else None

    @property
    def ended(self) -> bool:
        """All steps are done, and the evaluation after the last or the export is there."""
        if not self.done or (self.planned is not None and self.done < self.planned):
            return False
        last = self.evaluations[-1]["step"] if len(self.evaluations) > 1 else None
        return last == self.done or (self.folder / "export" / "config.json").is_file()


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """The runs of these folders, each folder once; UserError where one is no run folder at all."""
    distinct: dict[Path, Path] = {}
    for folder in folders:
        distinct.setdefault(folder.resolve(), folder)
    return _named([_read(folder) for folder in distinct.values()])


def _read(folder: Path) -> ReportedRun:
    label = visible(folder, kept="")
    if not folder.is_dir():
        raise UserError(f"{label} is no run folder: no such folder exists")
    notes: list[str] = []
    config = _config(folder / "config.yaml", notes)
    settings = flat(config) if config else {}
    metrics, evaluations = (_rows(folder / name, notes) for name in PARTS[1:3])
    records = any((folder / "rollouts").glob("step=*.parquet"))
    if not (metrics or records or {"credit", "training"} <= config.keys()):
        reasons = "; ".join(notes)
        raise UserError(
            f"{label} is no run folder: {reasons}" + "; it holds no records of rollouts"
        )
    return ReportedRun(folder, "", "", config, settings, metrics, evaluations, tuple(notes))


def _config(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append("config.yaml is not there")
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        flat(config)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        notes.append(f"config.yaml is damaged ({type(error).__name__})")
        return {}
    if not isinstance(config, dict):
        notes.append("config.yaml is damaged: it holds no settings")
        return {}
    return config


def _rows(path: Path, notes: list[str]) -> list[Row]:
    """The rows of a table in the order of their steps; those without a step that can be drawn are
    left out.
    """
    if not path.is_file():
        notes.append(f"{path.name} is not there")
        return []
    try:
        rows = read_numbers(path)
    except UserError as error:
        notes.append(visible(str(error).replace(str(path), path.name), kept=""))
        return []
    by_step = {row["step"]: row for row in rows if 0 <= row["step"] < math.inf}
    if len(by_step) < len(rows):
        left_out = len(rows) - len(by_step)
        notes.append(f"{path.name} holds {left_out} rows without a step of their own, left out")
    return [by_step[step] for step in sorted(by_step)]


def _within(config: dict[str, Any], name: str) -> Any:
    """A setting by its full name; None where there is none."""
    value: Any = config
    for word in name.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    return value


def _named(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Each with the name of its method and its seed; where two would be called the same, by their
    folders too.
    """
    methods = _methods(runs)
    names = []
    for run, method in zip(runs, methods, strict=True):
        seed = run.config.get("seed")
        names.append(method if seed is None else f"{method}, seed {visible(seed, kept='')}")
    named = []
    for run, method, name in zip(runs, methods, names, strict=True):
        folder = visible("/".join(run.folder.resolve().parts[-2:]), kept="")
        full = f"{name} ({folder})" if names.count(name) > 1 and name != folder else name
        named.append(replace(run, name=full, method=method))
    return named


def _methods(runs: Sequence[ReportedRun]) -> list[str]:
    """The name of each run's method; the folder's name where the settings are not there."""
    known = [i for i, run in enumerate(runs) if has_method(run.config)]
    names = method_names([method_settings(runs[i].config) for i in known])
    known_names = dict(zip(known, names, strict=True))
    folders = [run.folder.resolve().name for run in runs]
    return [visible(known_names.get(i, folder), kept="") for i, folder in enumerate(folders)]
