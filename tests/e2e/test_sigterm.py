"""A run that is asked to end ends where it is, with one sentence that says how to go on."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.processes import Entry

# one rollout step of these takes many minutes: nobody waits for its end
LONG = (
    "model=tiny",
    "logger=none",
    "trainer.max_epochs=1",
    "evaluation.max_problems=2",
    "evaluation.samples=1",
    "evaluation.pass_at=[1]",
    "training.problems_per_step=512",
    "training.problems_per_update=512",
    "training.rollouts_per_problem=64",
)


def ended_by_sigterm(entry: Entry, begun: Path, text: str) -> str:
    """What the process said, after SIGTERM reached it once ``text`` stood in the file ``begun``."""
    while entry.poll() is None and not (begun.exists() and text in begun.read_text()):
        time.sleep(0.2)
    time.sleep(2)  # into what comes next
    assert entry.poll() is None, entry.log.read_text()[-3000:]
    os.kill(entry.pid, signal.SIGTERM)
    try:
        assert entry.wait(120) == 143, entry.log.read_text()[-3000:]
    finally:
        if entry.poll() is None:
            entry.kill_group()
    return entry.log.read_text()


@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_a_training_ends_while_it_samples(tmp_path: Path, engine: str) -> None:
    run = tmp_path / "run"
    words = (*LONG, f"engine={engine}", f"hydra.run.dir={run}")
    entry = Entry(tmp_path / "log", "src/rlrt/train.py", *words)
    said = ended_by_sigterm(entry, run / "evaluation.csv", "\n0,")
    last = said.strip().splitlines()[-1]
    assert last == (f"error: ended by SIGTERM; go on with resume={run}")
    assert "Traceback" not in said
    assert not (run / "error.txt").exists()


def test_an_evaluation_ends_while_it_samples(tmp_path: Path) -> None:
    words = (
        "model=tiny",
        "benchmark=arithmetic",
        "engine=hf",
        "sampling.samples=4096",
        f"out={tmp_path / 'out'}",
    )
    entry = Entry(tmp_path / "log", "src/rlrt/eval.py", *words)
    said = ended_by_sigterm(entry, tmp_path / "out/config.yaml", "samples")
    assert said.strip().splitlines()[-1].startswith("error: ended by SIGTERM; the same command")
    assert "Traceback" not in said
