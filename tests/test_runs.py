"""The run that tests share is what they take it for."""

from pathlib import Path

from tests.runs import STEPS

from rlrt.records import read_table, record_files


def test_the_shared_run_is_whole(run_folder: Path) -> None:
    assert len(record_files(run_folder)) == STEPS
    assert (run_folder / "export" / "config.json").is_file()
    for step in range(1, STEPS + 1):
        assert (run_folder / "checkpoints" / f"step-{step:06d}.ckpt").is_file()
    read = [
        row["teacher_logprobs"] is not None
        for path in record_files(run_folder)
        for row in read_table(path, ["teacher_logprobs"]).to_pylist()
    ]
    assert any(read), "no rollout has a teacher view"
    assert not all(read)
