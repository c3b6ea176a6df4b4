"""Every part of the benchmark runs at toy size; what it measures there is not looked at."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRL = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed (the extra bench)"
)
SAME_GRADIENT = 1e-5  # share of the norm, float32


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *words, "--quick"]
    return subprocess.run(
        [*command, "--out", str(folder)], capture_output=True, text=True, timeout=280
    )


def rows_of(folder: Path, part: str, *flags: str) -> list[dict[str, Any]]:
    file, other = folder / "results.json", {"environment": {}, "quick": True, "rows": []}
    file.write_text(json.dumps({"other": other}), encoding="utf-8")
    done = run(folder, part, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["other"] == other, "what stood there is kept"
    result = results[part]
    assert result["environment"]["cores"] >= 1
    assert result["environment"]["versions"]["torch"]
    assert result["quick"]
    assert (folder / "results.svg").stat().st_size > 1000
    assert (folder / "results.png").stat().st_size > 1000
    assert "━" in done.stdout, "a table"
    return result["rows"]


@pytest.mark.slow
@TRL
def test_update_has_the_gradient_of_trl(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "update")
    assert {row["zero_signal"] for row in rows} == {0.0, 0.5}
    assert all(row["gradient_apart"] < SAME_GRADIENT for row in rows)


@pytest.mark.slow
def test_memory_has_the_gradient_of_the_naive_computation(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "memory")
    apart = {row["what"]: row["gradient_apart"] for row in rows if "gradient_apart" in row}
    assert apart.keys() == {"update", "distillation"}
    assert max(apart.values()) < SAME_GRADIENT


@pytest.mark.slow
@TRL
def test_split_has_the_distilled_gradient_of_trl(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "split")
    assert rows[0]["same_loss_apart"] < SAME_GRADIENT
    ours = [row for row in rows if row["case"].startswith("rlrt") and "bf16" not in row["case"]]
    assert all(max(row["drift"].values()) < SAME_GRADIENT for row in ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "context",
        pytest.param("steps", marks=TRL),
        pytest.param("sync", marks=pytest.mark.vllm),
        pytest.param("verifier", marks=TRL),
        "scaling",
        "host",
    ],
)
def test_part_runs(tmp_path: Path, part: str) -> None:
    assert rows_of(tmp_path, part)


def test_unknown_part_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "speed")
    assert done.returncode == 2
    assert "there is no part speed" in done.stderr
