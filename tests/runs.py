"""Runs that are made once for all tests that read them; first of all a tiny one."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = 3  # rollout steps, each with a checkpoint
# All 8192 take most of the time that a short run needs to start.
FEW_PROBLEMS = "data.train_problems=64"
SIZES = [
    "credit=rlrt",
    "model=tiny",
    "engine=hf",
    "logger=none",
    "reward.workers=1",
    f"trainer.max_epochs={STEPS}",
    "checkpoint.every_n_steps=1",
    f"checkpoint.keep={STEPS}",
    "checkpoint.export_every_n_steps=2",
    "evaluation.max_problems=4",
    "evaluation.samples=2",
    "evaluation.pass_at=[1,2]",
    "training.problems_per_step=4",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=4",
]


def make_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that the workers of one test session share: the first to come has ``make`` fill it, the
    others wait. Not to be changed.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers; without any it is that of all sessions
    folder = base / name
    made = folder.with_suffix(".made")
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(folder)
            made.touch()
    return folder


def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: records, checkpoints, tables and ``export/``."""

    def make(folder: Path) -> None:
        from rlrt.config.assembly import build_run  # imports Lightning
        from rlrt.config.compose import compose

        build_run(compose(SIZES), folder, 0).fit_and_finish(None)

    return make_once(tmp_path_factory, "tiny_run/rlrt_tiny", make)
