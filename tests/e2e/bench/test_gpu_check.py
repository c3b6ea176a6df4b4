"""The GPU check: all that means something on a CPU runs here, and a broken stage stops no other."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.paths import ROOT

BENCH = ROOT / "bench"
# What a stage's process does; its words are a JSON file, a limit in seconds and the device.
BODIES = {
    "fails": "raise SystemExit('no such kernel')",
    "hangs": """
escaped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
write(doing="waiting", figures={"escaped": escaped.pid}, told=[])
time.sleep(600)
""",
    "lies": "write(verdict='passed', figures={}, told=[]); raise SystemExit(3)",
    "silent": "",
    "skips": "write(verdict='skipped', reason='needs a card', figures={}, told=[])",
    "works": "write(verdict='passed', figures={'pi': 3.14}, told=['3 [of] 14'])",
}
BODY = """
import json, pathlib, subprocess, sys, time
def write(**content):
    pathlib.Path(sys.argv[1]).write_text(json.dumps(content))
"""
DRIVER = """
import pathlib, sys
sys.path.insert(0, {bench!r})
import gpu_check
stages = [gpu_check.Stage(name, share, tuple(command)) for name, share, command in {stages!r}]
sys.exit(gpu_check.check(stages, 60.0, {device!r}, pathlib.Path({out!r})))
"""


def checked(out: Path, device: str, *names: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit status, the result of each stage, and what was printed."""
    stages = [
        (name, 1 if name == "hangs" else 10, [sys.executable, "-c", BODY + BODIES[name]])
        for name in names
    ]
    program = DRIVER.format(bench=str(BENCH), stages=stages, device=device, out=str(out))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["passed"] == (done.returncode == 0), done.stderr
    return done.returncode, {one["stage"]: one for one in summary["stages"]}, done.stdout


def test_a_broken_stage_stops_no_other_and_leaves_no_process(tmp_path: Path) -> None:
    status, found, said = checked(tmp_path, "cpu", "fails", "hangs", "lies", "silent", "works")
    assert status == 1
    verdicts = {name: result["verdict"] for name, result in found.items()}
    assert verdicts == dict.fromkeys(("fails", "hangs", "lies", "silent"), "failed") | {
        "works": "passed"
    }
    assert found["fails"]["reason"] == "ended with status 1: no such kernel"
    assert found["hangs"]["reason"].startswith("killed at its limit of")
    assert found["hangs"]["reason"].endswith("s, waiting")
    assert found["hangs"]["seconds"] < 30
    with pytest.raises(ProcessLookupError):
        os.kill(found["hangs"]["figures"]["escaped"], 0)
    assert found["silent"]["reason"] == "ended with status 0: it said nothing"
    assert "3 [of] 14" in said, "figures are shown as they are"
    for name, result in found.items():
        assert json.loads((tmp_path / f"{name}.json").read_text()) == result
        assert (tmp_path / result["log"]).exists()
        assert result["versions"]["python"]
        assert result["stage_command"][3].endswith(f"{name}.json")


@pytest.mark.parametrize(("device", "status"), [("cpu", 0), ("cuda", 1)])
def test_a_stage_may_be_skipped_on_the_cpu_alone(tmp_path: Path, device: str, status: int) -> None:
    found_status, found, _ = checked(tmp_path, device, "skips", "works")
    assert found_status == status
    assert found["skips"]["verdict"] == ("failed" if status else "skipped")
    assert "needs a card" in found["skips"]["reason"]


def test_a_figure_that_is_no_number_fails_its_stage_and_what_follows_is_still_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from gpu_stages.stage import Check

    check = Check(tmp_path / "kernels.json", 10.0, "cpu")
    check.near("attention", math.nan, 1e-2)
    check.near("head", 2e-2, 1e-2)
    check.near("moments", 1e-2, 1e-2)
    check.between("peak", 48.0, 35.0, 52.5)
    check.between("peak", 53.0, 35.0, 52.5)
    check.between("peak", math.nan, 35.0, 52.5)
    assert check.failures == [
        "attention is nan, at most 0.01 is right",
        "head is 0.02, at most 0.01 is right",
        "peak is 53, 35 to 52.5 is right",
        "peak is nan, 35 to 52.5 is right",
    ]
    figures = json.loads((tmp_path / "kernels.json").read_text())["figures"]
    assert figures["moments"] == figures["moments_limit"] == 1e-2


@pytest.mark.parametrize(
    ("library", "backend"),
    [(None, "TRITON_ATTN"), ("_C.abi3.so", "TRITON_ATTN"), ("_vllm_fa3_C.abi3.so", "None")],
)
def test_vllm_without_flash_attention_is_told_to_use_triton(
    tmp_path: Path, library: str | None, backend: str
) -> None:
    folder = tmp_path / "vllm" / "vllm_flash_attn"
    folder.mkdir(parents=True)
    for file in ["../__init__.py", "__init__.py", *([library] if library else [])]:
        (folder / file).touch()
    ask = "from gpu_stages.stage import attention_backend as a; print(a(True), a(False))"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{BENCH}"}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [backend, "None"], done.stderr


@pytest.mark.slow
def test_the_full_size_is_that_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from gpu_stages.model import shape_of_stage

    from rlrt.model.load import parameter_count

    shape = shape_of_stage(card=True)
    assert parameter_count(shape) == 4_022_468_096  # of Qwen/Qwen3-4B-Base
    assert shape.rope_parameters["rope_theta"] == 1e6
    assert shape.eos_token_id == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["kernel"], "there is no stage kernel; there are imports, kernels"),
        (["--minutes", "0.1"], "--minutes is 0.1, it must be at least 0.5"),
        (["--minutes", "nan"], "--minutes is nan, it must be at least 0.5"),
    ],
)
def test_wrong_words_are_refused(words: list[str], sentence: str) -> None:
    command = [sys.executable, str(BENCH / "gpu_check.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(1750)
def test_all_that_a_cpu_can_run_passes_there(tmp_path: Path) -> None:
    command = [sys.executable, "bench/gpu_check.py", "--minutes", "28", "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["device"] == "cpu"
    found = {stage["stage"]: stage for stage in summary["stages"]}
    skipped = {name for name, stage in found.items() if stage["verdict"] == "skipped"}
    assert skipped == {"engine_4b"}
    assert found["train"]["figures"]["killed_after"] >= 2
    assert found["train_4b"]["figures"]["steps"] >= 2
    update = found["update"]["figures"]
    assert update["kernels"]
    assert update["update"]["mfu"] > 0
    assert update["score"]["tokens_per_s"] > 0
    assert found["engine"]["figures"]["proven_tensors"] == [47] * 3
    assert "train_4b" in done.stdout.split("━")[-1], "a table"
