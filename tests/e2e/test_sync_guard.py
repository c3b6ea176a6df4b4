"""A run whose engine misses a single tensor of a weight sync stops, and goes on with a sound engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.paths import ROOT

MISSED = "model.layers.1.self_attn.k_proj.weight"
FORGETFUL = f'''
"""The real engine, which leaves out one tensor of all syncs but the first."""

from rlrt.engine.vllm_engine import VLLMEngine


class ForgetfulEngine(VLLMEngine):
    syncs = 0

    def sync(self, weights):
        missed = "{MISSED}" if self.syncs else None
        super().sync((name, tensor) for name, tensor in weights if name != missed)
        self.syncs += 1
'''
SOUND = """from rlrt.engine.vllm_engine import VLLMEngine as ForgetfulEngine"""


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_tensor_that_is_not_sent_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    engine = tmp_path / "forgetful.py"
    engine.write_text(FORGETFUL)
    folder = tmp_path / "run"
    settings = [
        "credit=grpo",
        "model=tiny",
        "trainer.max_epochs=3",
        "training.problems_per_step=4",
        "training.problems_per_update=4",
        "training.max_response_tokens=32",
        "training.optimization.learning_rate=1e-6",  # far below what log-probs tell
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
        paths = f"{tmp_path}:{ROOT / 'src'}"
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    stopped = run(*settings, "engine._target_=forgetful.ForgetfulEngine")
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr
    told = " ".join(stopped.stderr.split())
    assert "after the weight sync of step 1 the engine does not serve the policy's weights" in told
    assert f"1 of 47 tensors differ ({MISSED})" in told
    assert [path.name for path in folder.glob("checkpoints/step-*")] == ["step-000001.ckpt"]

    engine.write_text(SOUND)
    resumed = run(f"resume={folder}")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
