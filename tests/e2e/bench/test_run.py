"""Every part of the benchmark runs at toy size; what it measures there is not looked at."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.paths import ROOT

TRL = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed (the extra bench)"
)
SAME_GRADIENT = 1e-5  # share of the norm, float32


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *words, "--quick"]
    return subprocess.run(
        [*command, "--out", str(folder)], capture_output=True, text=True, timeout=800
    )


def rows_of(folder: Path, *words: str) -> dict[str, list[dict[str, Any]]]:
    """Of each part, which all run one after the other: that they start takes longest."""
    parts = [word for word in words if not word.startswith("--")]
    file, other = folder / "results.json", {"environment": {}, "quick": True, "rows": []}
    file.write_text(json.dumps({"other": other}), encoding="utf-8")
    done = run(folder, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["other"] == other, "what stood there is kept"
    assert results.keys() == {"other", *parts}
    for part in parts:
        result = results[part]
        assert result["environment"]["cores"] >= 1
        assert result["environment"]["versions"]["torch"]
        assert result["quick"]
        assert result["rows"]
    assert (folder / "results.svg").stat().st_size > 1000
    assert (folder / "results.png").stat().st_size > 1000
    assert done.stdout.count("┏") >= len(parts), "a table of each"
    return {part: results[part]["rows"] for part in parts}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parts_run_and_have_the_gradient_of_the_naive_computation(tmp_path: Path) -> None:
    engine = ["sync"] if importlib.util.find_spec("vllm") else []
    rows = rows_of(tmp_path, "memory", "context", "scaling", "host", *engine)["memory"]
    apart = {row["what"]: row["gradient_apart"] for row in rows if "gradient_apart" in row}
    assert apart.keys() == {"update", "distillation"}
    assert max(apart.values()) < SAME_GRADIENT


@pytest.mark.slow
@pytest.mark.timeout(900)
@TRL
def test_parts_beside_trl_run_and_have_its_gradients(tmp_path: Path) -> None:
    found = rows_of(tmp_path, "update", "split", "steps", "verifier")
    assert {row["zero_signal"] for row in found["update"]} == {0.0, 0.5}
    assert all(row["gradient_apart"] < SAME_GRADIENT for row in found["update"])
    rows = found["split"]
    assert rows[0]["same_loss_apart"] < SAME_GRADIENT
    ours = [row for row in rows if row["case"].startswith("rlrt") and "bf16" not in row["case"]]
    assert all(max(row["drift"].values()) < SAME_GRADIENT for row in ours)


def test_unknown_part_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "speed")
    assert done.returncode == 2
    assert "there is no part speed" in done.stderr
