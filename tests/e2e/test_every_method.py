"""Every method, context, teacher and loss that has a YAML trains the tiny policy through a whole run."""

import csv
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlrt.config.assembly import build_run
from rlrt.config.compose import CONFIGS, compose

SIZES = [
    "model=tiny",
    "engine=hf",
    "logger=none",
    "reward.workers=1",
    "trainer.max_epochs=2",
    "training.problems_per_step=6",
    "training.problems_per_update=3",
    "training.rollouts_per_problem=4",
    "training.max_response_tokens=64",
    "evaluation.max_problems=2",
    "evaluation.samples=1",
    "evaluation.pass_at=[1]",
]
DISTILLING = {"sdpo", "srpo", "opsd"}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def train(folder: Path, *settings: str) -> list[dict[str, float]]:
    """The rows of metrics.csv of two rollout steps."""
    build_run(compose([*SIZES, *settings]), folder, 0).fit_and_finish(None)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [0, 1]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert row["sync/logprob_gap"] < 1e-4
    assert any(row["update/grad_norm"] > 0 for row in rows)
    assert (folder / "export/model.safetensors").exists()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("credit", names("credit"))
def test_every_method(tmp_path: Path, credit: str) -> None:
    rows = train(tmp_path / "run", f"credit={credit}")
    assert ("loss/distillation" in rows[0]) == (credit in DISTILLING)
    records = pq.read_table(tmp_path / "run/rollouts/step=000000.parquet").to_pylist()
    weights = [record["distillation"] for record in records]
    if credit not in DISTILLING:
        assert weights == [None] * 24
        return
    assert sum(row["update/distilled_tokens"] for row in rows) > 0
    assert any(row["loss/distillation"] > 0 for row in rows)
    for record, weight in zip(records, weights, strict=True):
        assert len(weight) == len(record["response_ids"])


@pytest.mark.slow
def test_a_method_that_reads_no_view_scores_none_before_its_only_update(tmp_path: Path) -> None:
    """And what needs no credit costs nothing: neither the probe nor a silent group counts as work."""
    rows = train(tmp_path / "run", "credit=grpo", "training.problems_per_update=6")
    for row in rows:
        assert row["score/student_share"] == row["score/teacher_share"] == 0
        assert row.get("score/mfu", 0) == row.get("score/tokens_per_s", 0) == 0
        assert row["score/skipped_rollouts"] == pytest.approx(row["rollout/zero_signal_groups"])
        assert row["update/skipped_rollouts"] == pytest.approx(row["score/skipped_rollouts"])
        assert row["update/tokens_per_s"] > 0
    records = pq.read_table(tmp_path / "run/rollouts/step=000000.parquet").to_pylist()
    for record in records:  # what has credit was read by its update
        assert (record["student_logprobs"] is not None) == any(record["credit"])


@pytest.mark.slow
@pytest.mark.parametrize("context", [name for name in names("context") if name != "none"])
def test_every_context(tmp_path: Path, context: str) -> None:
    settings = [f"context={context}"]
    if context == "feedback":
        rows = [
            {
                "id": str(n),
                "problem": f"Compute {n} + {n + 1} + 3.",
                "answer": str(2 * n + 4),
                "why": "Add the first two, then the third.",
            }
            for n in range(1, 15)
        ]
        path = tmp_path / "problems.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        settings += ["data=jsonl", f"data.path={path}", "data.feedback_column=why"]
    rows_found = train(tmp_path / "run", "credit=sdpo", *settings)
    assert any(row["context/found"] > 0 for row in rows_found)


@pytest.mark.slow
@pytest.mark.parametrize("teacher", names("teacher"))
def test_every_teacher(tmp_path: Path, teacher: str) -> None:
    settings = ["teacher.path=models/tiny"] if teacher == "separate" else []
    if teacher == "copied":
        settings = ["teacher.every_n_steps=1"]
    for credit in ("rlrt", "srpo"):
        train(tmp_path / credit, f"credit={credit}", f"teacher={teacher}", *settings)


@pytest.mark.slow
@pytest.mark.parametrize("loss", names("loss"))
@pytest.mark.parametrize("aggregation", names("aggregation"))
def test_every_loss(tmp_path: Path, loss: str, aggregation: str) -> None:
    rows = train(tmp_path / "run", "credit=rlrt", f"loss={loss}", f"aggregation={aggregation}")
    assert any(row["loss/surrogate"] != 0 for row in rows)


@pytest.mark.slow
def test_the_rules_of_a_step_together(tmp_path: Path) -> None:
    """Dynamic sampling, the overlong penalty, truncated responses left out, and flipped rewards."""
    rows = train(
        tmp_path / "run",
        "credit=rlrt",
        "training.resample_rounds=2",
        "training.overlong_buffer=40",
        "training.mask_truncated=true",
        "training.max_response_tokens=48",
        "reward.flip_probability=0.3",
    )
    assert all(row["rollout/resampled_groups"] >= 0 for row in rows)
    assert any(row["reward/flipped"] > 0 for row in rows)
    assert any(row["reward/penalty_mean"] < 0 for row in rows)
    records = pq.read_table(tmp_path / "run/rollouts/step=000000.parquet").to_pylist()
    cut = [record for record in records if record["truncated"]]
    assert cut, "no response was truncated, so nothing was tested"
    assert all(value == 0 for record in cut for value in record["credit"])
    assert any(value != 0 for record in records for value in record["credit"])
