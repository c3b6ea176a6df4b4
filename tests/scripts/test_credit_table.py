"""The credit table, as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rollout(reward: float, **fields: Any) -> dict[str, Any]:
    logprobs = {"engine_logprobs": [-1.0, -2.0], "student_logprobs": [-1.0, -2.0]}
    return {"group": 0, "reward": reward, **logprobs, "teacher_logprobs": None, **fields}


# Two correct and two wrong: not standardised, the advantages are ±0.5.
GROUP = {
    "step": 0,
    "rollouts": [
        rollout(1.0, teacher_logprobs=[-3.0, -2.0]),
        rollout(1.0, teacher_logprobs=[-0.5, -2.0]),
        rollout(0.0, student_logprobs=[-1.0], engine_logprobs=[-1.0]),
        rollout(0.0),
    ],
}


def credit_table(folder: Path, content: object, *words: str) -> subprocess.CompletedProcess[str]:
    path = folder / "group.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return subprocess.run(
        [sys.executable, "scripts/credit_table.py", f"input={path}", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_json_of_a_group_worked_out_by_hand(tmp_path: Path) -> None:
    """RLRT, λ = 0.5, ε = 1: dissent by 2 nats clips at 1 + ε, agreement by 0.5 pays e^-0.5."""
    words = ["credit=rlrt", "credit.standardize=false", "json=true"]
    done = credit_table(tmp_path, GROUP, *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["distillation"] is None
    assert "loss" not in result  # no rollout has logprobs
    first, second, third, fourth = result["advantages"]
    assert first == pytest.approx([0.5 * 1.5, 0.5], abs=1e-12)
    agreeing = 0.5 * (0.5 + 0.5 * 0.6065306597126334)
    assert second == pytest.approx([agreeing, 0.5], abs=1e-12)
    assert (third, fourth) == ([-0.5], [-0.5, -0.5])


def test_losses_and_the_table_for_people(tmp_path: Path) -> None:
    group = {"rollouts": [r | {"logprobs": r["student_logprobs"]} for r in GROUP["rollouts"]]}  # type: ignore[attr-defined]
    done = credit_table(tmp_path, group, "credit=grpo", "credit.standardize=false")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # seven tokens at ratio 1: -(4 · 0.5 - 3 · 0.5) / 7; each response's own mean cancels out
    assert f"loss/token_mean: {-0.5 / 7:.12g}" in lines
    assert any(line.startswith("loss/sequence_mean: ") for line in lines)
    assert sum("0 (reward 1)" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        ("{broken", [], "group.json is no JSON"),
        ([1], [], "is no JSON object with a list of rollouts"),
        ({"rollouts": [rollout(1.0, engine_logprobs=[-1.0])]}, [], "has 1 engine_logprobs and 2"),
        ({"rollouts": [rollout(1.0, teacher_logprobs=["x", 1])]}, [], "no list of finite numbers"),
        (GROUP, ["credit=nothing"], "credit is nothing, it must be one of grpo"),
        (GROUP, ["credit.mixing=2"], "credit.mixing is 2, it must lie in [0, 1]"),
        (GROUP, ["json=maybe"], "json is maybe, it must be true or false"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, content: object, words: list[str], sentence: str
) -> None:
    done = credit_table(tmp_path, content, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert not done.stdout
