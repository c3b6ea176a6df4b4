from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tests.training.step import LENGTHS, REWARDS, step_of

from rlrt.batch import Credit
from rlrt.training.records import SCHEMA, write_records


def written(folder: Path, credit: Credit | None = None) -> list[dict[str, Any]]:
    sampled, batch, _, own = step_of()
    write_records(folder, 12, sampled.rollouts, [f"q{r}" for r in range(8)], batch, credit or own)
    table = pq.read_table(folder / "step=000012.parquet")
    assert table.schema.equals(SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_row_per_rollout_and_a_number_per_token(tmp_path: Path) -> None:
    sampled, batch, _, credit = step_of()
    rows = written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step=000012.parquet"]
    assert [row["prompt"] for row in rows] == [f"q{r}" for r in range(8)]
    assert [row["reward"] for row in rows] == list(REWARDS)
    assert credit.advantages_B is not None
    assert [row["advantage"] for row in rows] == credit.advantages_B.tolist()
    for number, (row, rollout, length) in enumerate(
        zip(rows, sampled.rollouts, LENGTHS, strict=True)
    ):
        assert (row["group"], row["sample"], row["step"]) == (number // 2, number % 2, 12)
        assert (row["response"], row["truncated"]) == (rollout.text, rollout.response.truncated)
        assert row["verdict"] == rollout.verdict.value
        assert row["response_ids"] == list(rollout.response.ids)
        assert row["engine_logprobs"] == pytest.approx(list(rollout.response.engine_logprobs))
        assert row["credit"] == credit.advantages_BT[number, :length].tolist()
        student = batch.student_logprobs_BT[number, :length].tolist()
        assert row["student_logprobs"] == (student if number in (0, 1, 6) else None)


def test_what_was_not_scored_is_null_and_what_is_empty_is_not(tmp_path: Path) -> None:
    rows = written(tmp_path)
    for column, scored in (
        ("student_logprobs", (0, 1, 6)),
        ("student_entropy", (0, 1, 6)),
        ("teacher_logprobs", (0,)),
        ("distillation", ()),
        ("credit", range(8)),
    ):
        assert [i for i, row in enumerate(rows) if row[column] is not None] == list(scored), column
    assert rows[4]["credit"] == rows[4]["response_ids"] == []


def test_distillation_weights_are_recorded_and_an_absent_advantage_is_null(tmp_path: Path) -> None:
    weights = torch.arange(32.0).view(8, 4) * step_of()[1].response_mask_BT
    credit = replace(step_of()[3], distillation_BT=weights, advantages_B=None)
    rows = written(tmp_path, credit)
    assert [row["distillation"] for row in rows] == [
        weights[i, :length].tolist() for i, length in enumerate(LENGTHS)
    ]
    assert {row["advantage"] for row in rows} == {None}


def test_half_precision_is_recorded_too(tmp_path: Path) -> None:
    credit = step_of()[3]
    half = replace(credit, advantages_BT=credit.advantages_BT.bfloat16())
    assert written(tmp_path, half)[0]["credit"] == [0.75, 0.75]
