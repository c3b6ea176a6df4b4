"""Every part of the benchmark runs at toy size; what it measures there is not looked at."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.paths import ROOT
from tests.processes import run_entry

TRL = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed (the extra bench)"
)
SAME_GRADIENT = 1e-5  # share of the norm, float32


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *words, "--quick"]
    return subprocess.run(
        [*command, "--out", str(folder)], capture_output=True, text=True, timeout=800
    )


def measured_here(folder: Path, part: str) -> dict[str, Any]:
    """What the process of a part, started by what ``run.py`` starts it with, leaves."""
    result = folder / f"{part}.json"
    run_entry(folder / f"{part}.log", "bench/run.py", part, "--quick", "--inside", str(result))
    return json.loads(result.read_text())  # type: ignore[no-any-return]


def rows_of(folder: Path, *parts: str, **before: Any) -> dict[str, list[dict[str, Any]]]:
    """Of each part; ``before`` are results that stand there already."""
    file, other = folder / "results.json", {"environment": {}, "quick": True, "rows": []}
    file.write_text(json.dumps({"other": other, **before}), encoding="utf-8")
    done = run(folder, *parts)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["other"] == other, "what stood there is kept"
    assert results.keys() == {"other", *before, *parts}
    for part in (*before, *parts):
        result = results[part]
        assert result["environment"]["cores"] >= 1
        assert result["environment"]["versions"]["torch"]
        assert result["quick"]
        assert result["rows"]
    assert (folder / "results.svg").stat().st_size > 1000
    assert (folder / "results.png").stat().st_size > 1000
    assert done.stdout.count("┏") >= len(parts), "a table of each"
    return {part: results[part]["rows"] for part in (*before, *parts)}


@pytest.mark.timeout(900)
def test_parts_run_and_have_the_gradient_of_the_naive_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    modules = {"context": "context_cost", "scaling": "scaling"}
    if importlib.util.find_spec("vllm"):
        modules["sync"] = "sync"
    before = {part: measured_here(tmp_path, part) for part in modules}
    for part, module in modules.items():
        assert importlib.import_module(module).table(before[part]["rows"]).row_count
    rows = rows_of(tmp_path, "memory", "host", **before)["memory"]
    apart = {row["what"]: row["gradient_apart"] for row in rows if "gradient_apart" in row}
    assert apart.keys() == {"update", "distillation"}
    assert max(apart.values()) < SAME_GRADIENT


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
