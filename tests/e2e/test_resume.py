"""A run killed at any moment and resumed ends like one never killed. Runs the real entry.

RLRT_KILLS sets how many runs of each engine are killed (more of them than CI takes: RLRT_KILLS=10).
"""

import csv
import os
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tests.processes import Entry
from tests.runs import FEW_PROBLEMS
from tests.runs import STEPS as SHARED_STEPS

from rlrt.errors import UserError
from rlrt.training.checkpoint import find_checkpoint, is_whole

KILLS = int(os.environ.get("RLRT_KILLS", "1"))
STEPS = 4
WHERE = tuple(f"training.optimization.moments={where}" for where in ("device", "host"))
SETTINGS = [
    "model=tiny",
    FEW_PROBLEMS,
    f"trainer.max_epochs={STEPS}",
    "training.problems_per_step=4",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=4",
    "evaluation.every_n_steps=2",
    "evaluation.max_problems=4",
    "evaluation.samples=2",
    "evaluation.pass_at=[1,2]",
    "logger=none",
]


def start(folder: Path, *settings: str) -> Entry:
    words = (f"hydra.run.dir={folder}", *settings)
    return Entry(folder.with_suffix(".log"), "src/rlrt/train.py", *words)


def finish(folder: Path, *settings: str) -> None:
    process = start(folder, *settings)
    assert process.wait(timeout=250) == 0, folder.with_suffix(".log").read_text()[-3000:]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_the_machine = ("time/", "memory/")
    timed = [n for n in rows[0] if n.startswith(of_the_machine) or n.endswith(("_per_s", "/mfu"))]
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def require_identical(found: Path, expected: Path) -> None:
    """Weights to the bit, metrics to the digit, every recorded rollout."""
    weights = "export/model.safetensors"
    assert (found / weights).read_bytes() == (expected / weights).read_bytes()
    for name in ("metrics.csv", "evaluation.csv"):
        assert table(found / name) == table(expected / name)
    records = sorted(path.name for path in (expected / "rollouts").iterdir())
    assert sorted(path.name for path in (found / "rollouts").iterdir()) == records
    assert len(records) == STEPS
    for name in records:
        assert pq.read_table(found / "rollouts" / name).equals(
            pq.read_table(expected / "rollouts" / name)
        )


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("first", "engine", "method"),
    [
        pytest.param("host", "vllm", "credit=rlrt", marks=pytest.mark.vllm),
        # a frozen teacher: the policy as the run began, not as it resumed
        ("host", "hf", "credit=sdpo"),
        (
            "device",
            "hf",
            "credit=srpo teacher=ema teacher.rate=0.3 context.choice=random "
            "training.resample_rounds=1 reward.flip_probability=0.1",
        ),
    ],
)
def test_a_run_killed_at_a_random_moment_ends_like_one_never_killed(
    tmp_path: Path, first: str, engine: str, method: str
) -> None:
    """AdamW's moments are in one place before the kill and in the other after it, ``first`` at first."""
    settings = [*SETTINGS, f"engine={engine}", *method.split()]
    reference = tmp_path / "reference"
    process = start(reference, *settings)
    began = wait_for_work(reference, process)
    assert process.wait(timeout=250) == 0, reference.with_suffix(".log").read_text()[-3000:]
    worked = time.monotonic() - began
    assert [row["step"] for row in table(reference / "metrics.csv")] == [
        str(i) for i in range(STEPS)
    ]

    moments = random.Random(f"{engine}/{method}/{KILLS}")
    for number in range(KILLS):
        folder = tmp_path / f"killed_{number}"
        before, after = WHERE if (number % 2 == 0) == (first == "device") else WHERE[::-1]
        kill_after(moments.uniform(0, 0.9 * worked), folder, *settings, before)
        saved = sorted(path.name for path in folder.glob("checkpoints/step-*"))
        print(f"{engine} kill {number}: newest checkpoint {saved[-1] if saved else 'none yet'}")
        finish(folder, f"resume={folder}", after)
        require_identical(folder, reference)


def kill_after(seconds: float, folder: Path, *settings: str) -> None:
    """Start a run and kill it so long after its work began; earlier where it had ended by then.

    How long a run takes depends on what else the machine does at the moment.
    """
    while True:
        process = start(folder, *settings)
        wait_for_work(folder, process)
        time.sleep(seconds)
        if process.poll() is None:
            process.kill_group()
            return
        assert process.returncode == 0, folder.with_suffix(".log").read_text()[-3000:]
        shutil.rmtree(folder)
        seconds /= 2


def wait_for_work(folder: Path, process: Entry) -> float:
    """When the run had written its configuration: what follows is engine start and steps."""
    while not (folder / "config.yaml").exists():
        assert process.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        time.sleep(0.01)
    return time.monotonic()


def test_checkpoints_of_a_real_run(tmp_path: Path, run_folder: Path) -> None:
    """No pickled objects; a damaged one is refused and the one before it offered and good."""
    newest = max(run_folder.glob("checkpoints/step-*.ckpt"))
    assert (run_folder / "checkpoints/last.ckpt").samefile(newest)
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    last, before, *_ = sorted(folder.glob("checkpoints/step-*.ckpt"), reverse=True)
    assert (folder / "checkpoints/best.ckpt").exists()
    state = torch.load(last, weights_only=True)
    assert state["rollout_steps"] == SHARED_STEPS

    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.unlink()
    last.write_bytes(content)
    assert not is_whole(last)
    with pytest.raises(UserError, match=f"is damaged; go on from the one before it.*{before.name}"):
        find_checkpoint(folder)
    process = start(folder, f"resume={folder}")
    assert process.wait(timeout=100) == 2
    log = folder.with_suffix(".log").read_text()
    assert f"resume={before}" in log
    assert "Traceback" not in log

    expected = (run_folder / "export/model.safetensors").read_bytes()
    shutil.rmtree(folder / "export")
    finish(folder, f"resume={before}")
    assert (folder / "export/model.safetensors").read_bytes() == expected


def test_truncated_and_foreign_files_are_not_whole(tmp_path: Path) -> None:
    good = tmp_path / "step-000001.ckpt"
    torch.save({"rollout_steps": 1, "weights": torch.arange(1000)}, good)
    assert is_whole(good)
    for name, content in {
        "cut": good.read_bytes()[:-100],
        "empty": b"",
        "text": b"hello",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert not is_whole(path), name
    assert not is_whole(tmp_path / "missing")


def test_a_run_folder_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert find_checkpoint(tmp_path) is None


def test_a_missing_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder or checkpoint exists"):
        find_checkpoint(tmp_path / "nowhere")
