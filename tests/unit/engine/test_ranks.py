"""The real engine on each of two processes serves a sharded policy as one process serves a whole one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.paths import TINY
from tests.processes import run_ranks

from rlrt.engine.hf_engine import HFEngine
from rlrt.engine.vllm_engine import VLLMEngine
from rlrt.model.load import load_config

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def run(processes: int, tensor_parallel: int, folder: Path) -> list[dict[str, Any]]:
    """What every rank found."""
    folder.mkdir()
    words = ("tests.unit.engine.engine_rank", str(tensor_parallel), str(folder))
    run_ranks(processes, *words, log=folder / "logs")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


def responses(found: list[dict[str, Any]], scale: float) -> dict[int, list[int]]:
    """Ids by global seed."""
    return {
        seed: ids
        for rank in found
        for seed, ids in zip(rank["own"], rank[f"ids {scale}"], strict=True)
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (found,) = run(1, 1, tmp_path_factory.mktemp("ranks") / "alone")
    return found


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_processes_sample_what_one_does(
    alone: dict[str, Any], tmp_path: Path, tensor_parallel: int
) -> None:
    """With an engine each, and with one engine over both."""
    found = run(2, tensor_parallel, tmp_path / "two")
    for scale in (1.0, 1.05):  # both syncs
        assert alone[f"gap {scale}"] <= 1e-4
        assert [rank[f"gap {scale}"] for rank in found] == [found[0][f"gap {scale}"]] * 2
        assert found[0][f"gap {scale}"] <= 1e-4
        assert responses(found, scale) == responses([alone], scale)
        assert all(rank[f"told {scale}"] for rank in found)
        assert [rank[f"differing {scale}"] for rank in found] == [[], []]
        assert found[1][f"named {scale}"] == found[1]["all"]  # it holds the last element of each
        assert all(rank[f"exact {scale}"] for rank in found), "gathered and rounded differently"
    assert responses(found, 1.0) != responses(found, 1.05)
    for rank in found:
        assert rank["total"] == 2, "the engine took the trainer's process group with it"
        assert set(rank["cores"]) == {len(os.sched_getaffinity(0))}, "threads were pinned"


def test_an_engine_serves_only_ranks_that_it_can_be_shared_by() -> None:
    VLLMEngine(tensor_parallel=2).require_ranks(4)
    shape = load_config(TINY)  # 4 heads, 2 of keys and values
    for size in (1, 2, 4):
        VLLMEngine(tensor_parallel=size).require_shape(shape)
    with pytest.raises(ValueError, match=r"tensor_parallel is 8, it must divide the model's 4 att"):
        VLLMEngine(tensor_parallel=8).require_shape(shape)
    shape.num_attention_heads, shape.num_key_value_heads = 12, 4
    with pytest.raises(
        ValueError, match=r"tensor_parallel is 6, .* divide its 4 key/value heads or"
    ):
        VLLMEngine(tensor_parallel=6).require_shape(shape)
    with pytest.raises(ValueError, match=r"engine.tensor_parallel is 3, it must divide .* 2"):
        VLLMEngine(tensor_parallel=3).require_ranks(2)
    HFEngine().require_ranks(1)
    with pytest.raises(ValueError, match=r"engine=hf samples .* in a single process"):
        HFEngine().require_ranks(2)


def test_tensor_parallel_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.tensor_parallel is 0"):
        VLLMEngine(tensor_parallel=0)
