"""Every method, context, teacher, loss and aggregation that has a YAML trains the tiny policy through
a whole run.
"""

import csv
import json
import math
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.runs import FEW_PROBLEMS

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
# of the methods that read log-probs of the teacher in groups of mixed rewards: of which rollouts
READS_TEACHER = {
    "grpo": "none",
    "rlsd": "all",
    "rlrt": "correct with a peer",
    "rlrt_all": "with a peer",
    "teacher_favoring": "correct with a peer",
}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


CONTEXTS = [name for name in names("context") if name not in ("none", "correct_peer")]


def train(folder: Path, *settings: str) -> list[dict[str, float]]:
    """The rows of metrics.csv of two rollout steps."""
    problems = [] if "data=jsonl" in settings else [FEW_PROBLEMS]
    build_run(compose([*SIZES, *problems, *settings]), folder, 0).fit_and_finish(None)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [0, 1]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert row["sync/logprob_gap"] < 1e-4
    assert any(row["update/grad_norm"] > 0 for row in rows)
    assert (folder / "export/model.safetensors").exists()
    return rows


def records_of(folder: Path, step: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        folder / f"rollouts/step={step:06d}.parquet"
    ).to_pylist()
    return rows


def require_teacher_views(folder: Path, which: str) -> None:
    """The teacher has scored these rollouts of both steps and no others."""
    for step in range(2):
        records = records_of(folder, step)
        for record in records:
            group = [other for other in records if other["group"] == record["group"]]
            peer = any(other["reward"] == 1 and other is not record for other in group)
            correct = record["reward"] == 1
            expected = {
                "none": False,
                "all": True,
                "correct": correct,
                "with a peer": peer,
                "correct with a peer": correct and peer,
            }[which]
            mixed = len({other["reward"] for other in group}) == 2
            assert (record["teacher_logprobs"] is not None) == (mixed and expected)


@pytest.mark.parametrize("credit", names("credit"))
def test_every_method(tmp_path: Path, credit: str) -> None:
    rows = train(tmp_path / "run", f"credit={credit}")
    assert ("loss/distillation" in rows[0]) == (credit in DISTILLING)
    if credit in READS_TEACHER:
        require_teacher_views(tmp_path / "run", READS_TEACHER[credit])
    if credit == "sdpo":  # whose context is correct_peer
        assert any(row["context/found"] > 0 for row in rows)
    records = records_of(tmp_path / "run", 0)
    weights = [record["distillation"] for record in records]
    if credit not in DISTILLING:
        assert weights == [None] * 24
        return
    assert sum(row["update/distilled_tokens"] for row in rows) > 0
    assert any(row["loss/distillation"] > 0 for row in rows)
    for record, weight in zip(records, weights, strict=True):
        assert len(weight) == len(record["response_ids"])


def test_a_method_that_reads_no_view_scores_none_before_its_only_update(tmp_path: Path) -> None:
    """And what needs no credit costs nothing: neither the probe nor a silent group counts as work."""
    rows = train(tmp_path / "run", "credit=grpo", "training.problems_per_update=6")
    for row in rows:
        assert row["score/student_share"] == row["score/teacher_share"] == 0
        assert row.get("score/mfu", 0) == row.get("score/tokens_per_s", 0) == 0
        assert row["score/skipped_rollouts"] == pytest.approx(row["rollout/zero_signal_groups"])
        assert row["update/skipped_rollouts"] == pytest.approx(row["score/skipped_rollouts"])
        assert row["update/tokens_per_s"] > 0
    records = records_of(tmp_path / "run", 0)
    for record in records:  # what has credit was read by its update
        assert (record["student_logprobs"] is not None) == any(record["credit"])


@pytest.mark.parametrize("context", CONTEXTS)
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


@pytest.mark.parametrize("teacher", names("teacher"))
def test_every_teacher(tmp_path: Path, teacher: str) -> None:
    """For a method that reads its log-probs and one that distills; their own are live and frozen."""
    settings = ["teacher.path=models/tiny"] if teacher == "separate" else []
    if teacher == "copied":
        settings = ["teacher.every_n_steps=1"]
    for credit, own in (("rlrt", "live"), ("srpo", "frozen")):
        if teacher != own:
            train(tmp_path / credit, f"credit={credit}", f"teacher={teacher}", *settings)


def test_teachers_of_an_answer_where_no_peer_is_correct(tmp_path: Path) -> None:
    train(tmp_path / "run", "credit=rlrt", "context=peer_or_answer")
    require_teacher_views(tmp_path / "run", "correct")


@pytest.mark.parametrize(
    ("loss", "aggregation"), list(zip_longest(names("loss"), names("aggregation")))
)
def test_every_loss_and_aggregation(
    tmp_path: Path, loss: str | None, aggregation: str | None
) -> None:
    """Each once: neither knows of the other."""
    chosen = {"loss": loss, "aggregation": aggregation}
    settings = [f"{group}={name}" for group, name in chosen.items() if name]
    rows = train(tmp_path / "run", "credit=rlrt", *settings)
    assert any(row["loss/surrogate"] != 0 for row in rows)


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
    records = records_of(tmp_path / "run", 0)
    cut = [record for record in records if record["truncated"]]
    assert cut, "no response was truncated, so nothing was tested"
    assert all(value == 0 for record in cut for value in record["credit"])
    assert any(value != 0 for record in records for value in record["credit"])
