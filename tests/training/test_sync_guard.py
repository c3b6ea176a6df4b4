"""A run whose engine misses a weight sync stops, and goes on where its limit is raised."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUCK = '''
"""An engine that takes the first weights and never any later ones."""

from copy import deepcopy

from rlrt.engine.hf_engine import HFEngine


class StuckEngine(HFEngine):
    def start(self, policy, spec):
        super().start(deepcopy(policy), spec)
'''


@pytest.mark.slow
def test_a_stale_engine_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    folder = tmp_path / "run"
    settings = [
        "credit=grpo",
        "model=tiny",
        "engine=hf",
        "trainer.max_epochs=4",
        "training.problems_per_step=4",
        "training.problems_per_update=4",
        "training.optimization.learning_rate=0.01",
        "evaluation.max_problems=2",
        "logger=none",
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            str(ROOT / "src/rlrt/train.py"),
            f"hydra.run.dir={folder}",
            *more,
        ]
        environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": ""}
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    stopped = run(*settings, "engine._target_=stuck.StuckEngine")
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr
    assert "after the weight sync of step 1" in stopped.stderr
    assert "does not serve the policy's weights" in stopped.stderr
    assert [path.name for path in folder.glob("checkpoints/step-*")] == ["step-000001.ckpt"]

    # the same step probes with the same seeds, so nothing but another limit can let it pass
    raised = run(f"resume={folder}", "engine.max_logprob_gap=1000")
    assert raised.returncode == 0, raised.stderr[-2000:]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 4
