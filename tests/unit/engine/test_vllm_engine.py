"""An engine without enough memory ends in one sentence that names what to change."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.paths import ROOT

from rlrt.engine.vllm_engine import EngineMemoryError, VLLMEngine, within_memory

START = """
import sys
import torch
from rlrt.model.policy import Policy
from rlrt.engine.engine import EngineSpec
from rlrt.engine.vllm_engine import EngineMemoryError
from rlrt.engine.vllm_engine import VLLMEngine
from rlrt.model.load import load_policy

folder, tokens = sys.argv[1], int(sys.argv[2])
policy = load_policy(folder, torch.float32, random_init_seed=0)
try:
    VLLMEngine(cpu_cache_gib=1).start(Policy(policy), EngineSpec(folder, (2,), torch.float32, tokens))
except EngineMemoryError as error:
    print(error)
"""


@pytest.mark.vllm
def test_a_cache_that_holds_no_sequence_is_named(tmp_path: Path) -> None:
    """The real engine, in a process of its own: what it leaves after a failed start is its own."""
    tokens = 2**17
    config = json.loads((ROOT / "models/tiny/config.json").read_text())
    bytes_per_token = 2 * 4 * config["num_hidden_layers"] * 8 * 256  # keys and values, float32
    assert bytes_per_token * tokens > 2**30
    wide = {"num_key_value_heads": 8, "num_attention_heads": 8, "head_dim": 256}
    (tmp_path / "config.json").write_text(
        json.dumps(config | wide | {"max_position_embeddings": tokens})
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((ROOT / "models/tiny" / name).read_bytes())
    ended = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path), str(tokens)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = ended.stdout.strip().splitlines()[-1]
    assert said.startswith(
        "the engine ran out of memory when it started: raise engine.cpu_cache_gib"
    )
    assert "or lower training.max_response_tokens" in said


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            "lower engine.gpu",
        ),
        (ValueError("No available memory for the cache blocks. Try"), "raise engine.gpu"),
        (
            ValueError("Free memory on device cuda:0 (3/80 GiB) on startup is less"),
            "lower engine.gpu",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "lower engine.gpu",
        ),
        (MemoryError(), "lower engine.gpu"),
    ],
)
def test_every_lack_of_memory_names_the_settings(error: Exception, cure: str) -> None:
    with (
        pytest.raises(EngineMemoryError, match=rf"when it sampled: {cure}.*max_response_tokens"),
        within_memory("gpu_memory_utilization", "sampled"),
    ):
        raise error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"^something else$"), within_memory("any", "sampled"):
        raise ValueError("something else")


@pytest.mark.vllm
def test_a_cache_above_the_memory_of_the_machine_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"engine\.cpu_cache_gib is 1000000, .* GiB of memory in all"
    ):
        VLLMEngine(cpu_cache_gib=1_000_000)
