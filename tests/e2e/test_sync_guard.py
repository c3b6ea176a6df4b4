"""A run whose engine misses a single tensor of a weight sync stops, and goes on with a sound engine."""

from pathlib import Path

import pytest
from tests.processes import Entry
from tests.runs import FEW_PROBLEMS

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


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_tensor_that_is_not_sent_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    engine = tmp_path / "forgetful.py"
    engine.write_text(FORGETFUL)
    folder = tmp_path / "run"
    settings = [
        "credit=grpo",
        "model=tiny",
        FEW_PROBLEMS,
        "trainer.max_epochs=3",
        "training.problems_per_step=4",
        "training.problems_per_update=4",
        "training.max_response_tokens=32",
        "training.optimization.learning_rate=1e-6",  # far below what log-probs tell
        "evaluation.max_problems=2",
        "logger=none",
    ]

    def run(log: str, *more: str) -> tuple[int, str]:
        words = (f"hydra.run.dir={folder}", *more)
        process = Entry(tmp_path / log, "src/rlrt/train.py", *words, PYTHONPATH=str(tmp_path))
        return process.wait(280), process.log.read_text()

    status, printed = run("stopped", *settings, "engine._target_=forgetful.ForgetfulEngine")
    assert status == 3, printed[-2000:]
    assert "Traceback" not in printed
    told = " ".join(printed.split())
    assert "after the weight sync of step 1 the engine does not serve the policy's weights" in told
    assert f"1 of 47 tensors differ ({MISSED})" in told
    assert [path.name for path in folder.glob("checkpoints/step-*")] == ["step-000001.ckpt"]

    engine.write_text(SOUND)
    status, printed = run("resumed", f"resume={folder}")
    assert status == 0, printed[-2000:]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
