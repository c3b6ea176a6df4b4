"""Run folders of four steps with known numbers, and how they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlrt.analysis.report import page, samples_of
from rlrt.analysis.runs import ReportedRun, read_runs

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trainer": {"max_epochs": 4, "precision": "32-true"},
    "engine": {"max_logprob_gap": None},
    "loss": {"rollout_correction_limit": 2.0},
    "credit": {"_target_": "rlrt.credit.rlrt.RLRT", "mixing": 0.5},
    "training": {"temperature": 1.0},
}
COLUMNS = "step,reward/mean,sync/logprob_gap,rollout/truncated,time/step_s,time/rollout_s"
METRICS = [
    f"{COLUMNS},time/evaluation_s",
    "0,0.25,1e-6,0,3,1,8",
    "1,0.5,3e-6,0.5,3,2,",
    "2,0.75,2e-6,0.5,3,1,",
    "3,1.0,1e-6,0.5,3,2,",
]
EVALUATIONS = ["step,avg@2,pass@1,pass@2", "0,0.4,0.4,0.5", "2,0.9,0.9,1", "4,0.8,0.8,1"]
Make = Callable[..., Path]


def seeded(number: int) -> dict[str, Any]:
    return CONFIG | {"seed": number}


def one(folder: Path) -> ReportedRun:
    return read_runs([folder])[0]


def whole_page(runs: list[ReportedRun]) -> str:
    return page(runs, [samples_of(run.folder, None) for run in runs], [None] * len(runs))
