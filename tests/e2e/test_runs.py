"""The run that tests share is what they take it for."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tests.paths import TINY
from tests.runs import STEPS

from rlrt.records import read_table, record_files
from rlrt.training.exports import read_origin


def test_the_shared_run_is_whole(run_folder: Path) -> None:
    assert len(record_files(run_folder)) == STEPS
    assert (run_folder / "export" / "config.json").is_file()
    for step in range(1, STEPS + 1):
        assert (run_folder / "checkpoints" / f"step-{step:06d}.ckpt").is_file()
    for step in (0, 2):  # of a run that takes its first step from models/tiny
        assert read_origin(run_folder / "exports" / f"step-{step:06d}").rollout_steps == step
    start = load_file(run_folder / "exports" / "step-000000" / "model.safetensors")
    assert all(torch.equal(start[n], t) for n, t in load_file(f"{TINY}/model.safetensors").items())
    read = [
        row["teacher_logprobs"] is not None
        for path in record_files(run_folder)
        for row in read_table(path, ["teacher_logprobs"]).to_pylist()
    ]
    assert any(read), "no rollout has a teacher view"
    assert not all(read)
