"""Runs of several processes through the real entry, a real engine on each: the same run as one's."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.paths import ROOT, TINY
from tests.processes import Entry, run_ranks, torchrun
from tests.runs import FEW_PROBLEMS, make_once
from tests.untied import untied_tiny

from rlrt.config.components import build_components
from rlrt.config.compose import compose
from rlrt.errors import UserError
from rlrt.records import read_table

SETTINGS = [
    "model=tiny",
    FEW_PROBLEMS,
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
STEPS = ["trainer.max_epochs=3", "checkpoint.keep=3"]
TWO = ["strategy=fsdp", "trainer.devices=2"]
# what the clock, the machine, and the way that work is cut have a part in
OWN = (
    "time/",
    "memory/",
    "sync/",
    *(f"{s}/{n}" for s in ("score", "update") for n in ("mfu", "padding_waste", "idle_share")),
)


def start(
    folder: Path, *settings: str, launcher: Sequence[str] = ()
) -> Entry | subprocess.Popen[bytes]:
    """A run, or several processes of one that a launcher starts."""
    words = [f"hydra.run.dir={folder}", *SETTINGS, *settings]
    if not launcher:
        return Entry(folder.with_suffix(".log"), "src/rlrt/train.py", *words)
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *launcher, str(ROOT / "src/rlrt/train.py"), *words],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(folder: Path, *settings: str) -> None:
    """A whole run, of two processes with the variables of torchrun where it is ``TWO``."""
    words = [f"hydra.run.dir={folder}", *SETTINGS, *settings]
    count = 2 if TWO[-1] in settings else 1
    logs = folder.with_name(f"{folder.name}_logs")
    run_ranks(count, "src/rlrt/train.py", *words, log=logs, timeout_s=400)


def distance(first: Path, second: Path) -> float:
    """Relative, of all exported weights."""
    found, other = (load_file(run / "export/model.safetensors") for run in (first, second))
    assert found.keys() == other.keys()
    apart = sum(float(((found[n] - other[n]).double() ** 2).sum()) for n in found)
    return float((apart / sum(float((found[n].double() ** 2).sum()) for n in found)) ** 0.5)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def require_same_rows(first: Path, second: Path, since: int = 0) -> None:
    """From step ``since`` on, where the second run began."""
    for row, other in zip(rows(first)[since:], rows(second), strict=True):
        names, twins = (
            {name for name in found if not name.startswith(OWN) and not name.endswith("_per_s")}
            for found in (row, other)
        )
        assert names == twins
        for name in names:
            assert other[name] == pytest.approx(row[name], rel=1e-5, abs=1e-5), name


@pytest.fixture(scope="module", params=["tied", "untied"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting of a policy whose head is its embedding, or is not."""
    if request.param == "tied":
        return f"model.path={TINY}"
    path = make_once(tmp_path_factory, "untied/model", lambda path: untied_tiny(path))
    return f"model.path={path}"


@pytest.fixture(scope="module")
def one(policy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of one process, with a checkpoint of each."""
    return make_once(
        tmp_path_factory,
        f"one/{'tied' if TINY in policy else 'untied'}",
        lambda folder: finish(folder, policy, *STEPS),
    )


@pytest.fixture(scope="module")
def two(policy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same three steps of two, whose checkpoints each writes a part of."""
    settings = [policy, *STEPS, *TWO, "trainer.strategy.sharded_checkpoints=true"]
    name = f"two/{'tied' if TINY in policy else 'untied'}"
    return make_once(tmp_path_factory, name, lambda folder: finish(folder, *settings))


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_processes_end_where_one_does(one: Path, two: Path) -> None:
    """After three steps of two updates, weights 1e-6 apart (relative), where the updates move them by
    1e-3 and more: both sum the same gradient, in another order of float32. Every token that was sampled
    is the same, and so is every metric that is not a clock's.
    """
    assert distance(one, two) < 1e-6
    require_same_rows(one, two)
    for step in range(3):
        name = f"rollouts/step={step:06d}.parquet"
        found, other = (read_table(run / name).to_pylist() for run in (one, two))
        for rollout, twin in zip(found, other, strict=True):
            for column in ("group", "sample", "response_ids", "verdict", "reward"):
                assert rollout[column] == twin[column]
    scores = [(run / "evaluation.csv").read_text() for run in (one, two)]
    assert scores[0] == scores[1]


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_checkpoint_of_two_processes_continues_on_one(
    tmp_path: Path, policy: str, one: Path, two: Path
) -> None:
    """Written in parts; one in a single file: tests/e2e/test_sharded_checkpoint.py."""
    folder = tmp_path / "run"
    assert (two / "checkpoints/last.ckpt").is_dir()
    finish(folder, policy, "strategy=single", f"resume={two}/checkpoints/step-000002.ckpt")
    assert distance(one, folder) < 1e-6
    require_same_rows(one, folder, since=2)


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["tied"], indirect=True)
def test_a_checkpoint_of_one_process_continues_on_two_of_which_one_dies(
    tmp_path: Path, policy: str, one: Path
) -> None:
    """SIGKILL in the middle: within a minute the other has ended with one sentence; resumed, as under
    torchrun, with AdamW's moments on the host, the run ends where one that nothing befell does. Rank
    0's death: tests/unit/training/test_liveness.py.
    """
    folder = tmp_path / "run"
    process = start(folder, policy, *TWO, f"resume={one}/checkpoints/step-000001.ckpt")
    until = time.monotonic() + 300
    while not (folder / "checkpoints/step-000002.ckpt").exists():
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
    moments = "training.optimization.moments=host"
    finish(folder, policy, *TWO, moments, f"resume={folder}")
    assert distance(one, folder) < 1e-6
    require_same_rows(one, folder, since=1)


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


@pytest.mark.timeout(600)
def test_one_process_in_bfloat16_samples_trains_resumes_and_exports(tmp_path: Path) -> None:
    """Sharded over itself: the plain engine generates with the very layers that are trained."""
    settings = [
        "engine=hf",
        "credit=sdpo",
        "teacher=frozen",
        "trainer.precision=bf16-mixed",
        "model.gradient_checkpointing=true",
        "model.save_attention=true",
        "training.problems_per_step=2",
        "training.problems_per_update=2",
        "training.resample_rounds=0",
        "training.optimization.moments=host",
        "evaluation.max_problems=1",
        "evaluation.samples=1",
    ]
    folder = tmp_path / "run"
    finish(folder, "trainer.max_epochs=1", *settings)
    assert (
        folder / "checkpoints/step-000001.ckpt"
    ).is_dir()  # as of several: nothing is copied for it
    finish(folder, "trainer.max_epochs=2", f"resume={folder}", *settings)
    found = rows(folder)
    assert [row["step"] for row in found] == [0, 1]
    assert all(row["update/grad_norm"] > 0 for row in found)
    assert all(0 < row["sync/logprob_gap_mean"] < 0.02 for row in found)
    exported = load_file(folder / "export/model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}


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
            ["strategy.sharded_checkpoints=true"],
            "those of a strategy are the trainer's, trainer.strategy.sharded_checkpoints",
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
    settings: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        build_components(compose([*SETTINGS, *settings]))


def test_the_entry_refuses_before_there_are_processes_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *TWO, "training.problems_per_step=3", "training.problems_per_update=3")
    assert process.wait(timeout=120) == 2
    log = folder.with_suffix(".log").read_text()
    assert log.count("it must be a multiple of the 2 ranks") == log.count("error: ") == 1
    assert "Traceback" not in log
    assert not folder.exists()


def test_a_damaged_weight_file_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    """Rank 0 alone reads it; torchrun ends the other, which has not met it yet."""
    model, folder = Path(untied_tiny(tmp_path / "model")), tmp_path / "run"
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    process = start(folder, *TWO, f"model.path={model}", launcher=torchrun(2))
    assert process.wait(timeout=200) != 0
    log = folder.with_suffix(".log").read_text()
    said = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, log[-3000:]
    assert f"model.path is {model}: its weights do not load" in said[0]
    assert not folder.exists()


def test_processes_that_were_launched_must_be_those_that_are_set(tmp_path: Path) -> None:
    words = ["model=tiny", *TWO, f"hydra.run.dir={tmp_path / 'run'}"]
    launched = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}
    process = Entry(tmp_path / "log", "src/rlrt/train.py", *words, **launched)
    assert process.wait(timeout=120) == 2
    assert "is 2, and 4 processes were launched" in process.log.read_text()
