"""Runs of several processes through the real entry, a real engine on each: the same run as one's."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.conftest import ROOT
from tests.processes import torchrun

from rlrt.records import read_table

SETTINGS = [
    "model=tiny",
    "engine=vllm",
    "logger=none",
    "reward.workers=1",
    "training.problems_per_step=8",
    "training.problems_per_update=4",
    "training.rollouts_per_problem=4",
    "training.resample_rounds=1",
    "evaluation.max_problems=3",
    "evaluation.samples=2",
    "evaluation.pass_at=[1]",
]
TWO = ["strategy=fsdp", "trainer.devices=2"]
# what the clock, the machine, and the way that work is cut have a part in
OWN = (
    "time/",
    "memory/",
    "sync/",
    *(f"{s}/{n}" for s in ("score", "update") for n in ("mfu", "padding_waste", "idle_share")),
)


def start(folder: Path, *settings: str, launcher: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, str(ROOT / "src/rlrt/train.py")]
    command.append(f"hydra.run.dir={folder}")
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*command, *SETTINGS, *settings],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(folder: Path, *settings: str, launcher: Sequence[str] = ()) -> None:
    process = start(folder, *settings, launcher=launcher)
    assert process.wait(timeout=400) == 0, folder.with_suffix(".log").read_text()[-4000:]


def distance(first: Path, second: Path) -> float:
    """Relative, of all exported weights."""
    found, other = (load_file(run / "export/model.safetensors") for run in (first, second))
    assert found.keys() == other.keys()
    apart = sum(float(((found[n] - other[n]).double() ** 2).sum()) for n in found)
    return float((apart / sum(float((found[n].double() ** 2).sum()) for n in found)) ** 0.5)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def require_same_rows(first: Path, second: Path) -> None:
    for row, other in zip(rows(first), rows(second), strict=True):
        names, twins = (
            {name for name in found if not name.startswith(OWN) and not name.endswith("_per_s")}
            for found in (row, other)
        )
        assert names == twins
        for name in names:
            assert other[name] == pytest.approx(row[name], rel=1e-5, abs=1e-5), name


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps of one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    finish(folder, "trainer.max_epochs=5")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same five steps of two."""
    folder = tmp_path_factory.mktemp("two") / "run"
    finish(folder, "trainer.max_epochs=5", *TWO)
    return folder


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_processes_end_where_one_does(one: Path, two: Path) -> None:
    """After five steps of two updates, weights 1e-6 apart (relative), where ten updates move them by
    1e-3 and more: both sum the same gradient, in another order of float32. Every token that was sampled
    is the same, and so is every metric that is not a clock's.
    """
    assert distance(one, two) < 1e-6
    require_same_rows(one, two)
    for step in range(5):
        name = f"rollouts/step={step:06d}.parquet"
        found, other = (read_table(run / name).to_pylist() for run in (one, two))
        for rollout, twin in zip(found, other, strict=True):
            for column in ("group", "sample", "response_ids", "verdict", "reward"):
                assert rollout[column] == twin[column]
    scores = [(run / "evaluation.csv").read_text() for run in (one, two)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_checkpoint_of_two_processes_continues_on_one(tmp_path: Path, one: Path) -> None:
    """Written in parts; one in a single file: tests/training/test_sharded_checkpoint.py."""
    folder = tmp_path / "run"
    parts = "trainer.strategy.sharded_checkpoints=true"
    finish(folder, "trainer.max_epochs=3", *TWO, parts)
    finish(folder, "trainer.max_epochs=5", "strategy=single", f"resume={folder}")
    assert distance(one, folder) < 1e-6
    require_same_rows(one, folder)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_checkpoint_of_one_process_continues_on_two(tmp_path: Path, one: Path) -> None:
    """Which torchrun launches; the optimiser's state waits on the host while the engines sample."""
    folder = tmp_path / "run"
    finish(folder, "trainer.max_epochs=3")
    offload = "trainer.strategy.offload_optimizer=true"
    resumed = ["trainer.max_epochs=5", *TWO, offload, f"resume={folder}"]
    finish(folder, *resumed, launcher=torchrun(2))
    assert distance(one, folder) < 1e-6
    require_same_rows(one, folder)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_processes_with_all_that_a_large_model_needs(tmp_path: Path) -> None:
    """Layers gathered in bfloat16, activations computed again, a teacher that follows, a distilling
    method, parts of a checkpoint on every rank; stopped after two steps and gone on with.
    """
    settings = [
        "credit=sdpo",
        "teacher=ema",
        "teacher.rate=0.3",
        "trainer.precision=bf16-mixed",
        "model.gradient_checkpointing=true",
        "trainer.strategy.sharded_checkpoints=true",
        "training.token_budget=250",
        *TWO,
    ]
    folder = tmp_path / "run"
    finish(folder, "trainer.max_epochs=2", *settings)
    finish(folder, "trainer.max_epochs=3", *settings, f"resume={folder}")
    found = rows(folder)
    assert [row["step"] for row in found] == [0, 1, 2]
    assert all(row["update/grad_norm"] > 0 for row in found)
    assert all(row["sync/logprob_gap_mean"] < 0.02 for row in found)
    assert all(row["update/distilled_tokens"] > 0 for row in found)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_rank_that_dies_ends_the_other_and_the_run_goes_on(tmp_path: Path, one: Path) -> None:
    """SIGKILL in the middle: within a minute the other has ended with one sentence; resumed, the run
    ends where one that nothing befell does. Rank 0's death: tests/training/test_liveness.py.
    """
    folder = tmp_path / "run"
    process = start(folder, "trainer.max_epochs=5", *TWO)
    until = time.monotonic() + 300
    while not (folder / "metrics.csv").exists():
        assert process.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [pid for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(ranks[0]), signal.SIGKILL)
    assert process.wait(60) == 3
    log = folder.with_suffix(".log").read_text()
    assert "error: rank 1 of 2 has died" in log
    assert f"resume={folder}" in log
    assert "Traceback" not in log
    finish(folder, "trainer.max_epochs=5", *TWO, f"resume={folder}")
    assert distance(one, folder) < 1e-6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            [*TWO, "training.problems_per_update=3", "training.problems_per_step=3"],
            "training.problems_per_update is 3, it must be a multiple of the 2 ranks",
        ),
        ([*TWO, "engine=hf"], "engine=hf samples with the trainer's own policy"),
        (
            [*TWO, "engine.tensor_parallel=3"],
            "engine.tensor_parallel is 3, it must divide the number of processes, 2",
        ),
        (
            ["strategy.offload_optimizer=true"],
            "those of a strategy are the trainer's, trainer.strategy.offload_optimizer",
        ),
        (["trainer.devices=2"], "trainer.devices is 2, it must be 1 with strategy=single"),
        (["strategy=fsdp"], 'trainer.devices is "auto", it must be a whole number'),
        (
            [*TWO, "training.token_budget=100"],
            "training.token_budget is 100, it must hold one sequence",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_loads(
    tmp_path: Path, settings: list[str], sentence: str
) -> None:
    folder = tmp_path / "run"
    process = start(folder, *settings)
    assert process.wait(timeout=120) == 2
    log = folder.with_suffix(".log").read_text()
    assert sentence in log
    assert "Traceback" not in log
    assert not folder.exists()


def test_processes_that_were_launched_must_be_those_that_are_set(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "src/rlrt/train.py"), "model=tiny", "strategy=fsdp"]
    done = subprocess.run(
        [*command, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}"],
        env=os.environ | {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "is 2, and 4 processes were launched" in done.stderr
