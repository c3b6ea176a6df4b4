"""One real run, tiny, made once for all tests that read run folders."""

import fcntl
import os
from pathlib import Path

import pytest
from tests.processes import run_entry

STEPS = 3  # rollout steps, each with a checkpoint
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


def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: records, checkpoints, tables and ``export/``. Not to be changed.

    The workers of one test session share it: the first to come makes it, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers; without any it is that of all sessions
    folder = base / "tiny_run" / "rlrt_tiny"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "export").is_dir():  # comes last
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    run_entry(folder.with_suffix(".log"), "src/rlrt/train.py", f"hydra.run.dir={folder}", *SIZES)
