"""Records written by a training step, found by rollout step, and read back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.unit.analysis.evaluations import evaluation_folder
from tests.unit.training.step import LENGTHS, REWARDS, step_of

from rlrt.batch import Credit
from rlrt.errors import UserError
from rlrt.records import FIELDS, SCHEMA, read_table, rollouts_of, step_files, write_records


def folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_steps_in_order_with_their_files(tmp_path: Path) -> None:
    run = folder_with(tmp_path, *(f"rollouts/step={step:06d}" for step in (12, 0, 3, 1_000_000)))
    found = step_files(run)
    assert list(found) == [0, 3, 12, 1_000_000]
    assert found[12] == run / "rollouts" / "step=000012.parquet"


def test_a_step_that_lacks_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    run = folder_with(tmp_path, *(f"rollouts/step={step:06d}" for step in (2, 7)))
    assert list(step_files(run, [7])) == [2, 7]
    with pytest.raises(UserError, match=r"no records of rollout step 3: .* 2 steps from 2 to 7"):
        step_files(run, [2, 3])


def test_an_evaluation_has_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="records of an evaluation: a run folder is needed"):
        step_files(folder_with(tmp_path, "records/step=000001"))
    with pytest.raises(UserError, match="holds no records"):
        step_files(tmp_path / "records")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Two rollouts of a problem, the first one right."""
    return evaluation_folder(tmp_path, {"b": [1]}, 2) / "records" / "b.parquet"


def rewritten(path: Path, name: str, values: list[Any], kind: pa.DataType | None = None) -> None:
    """The record with another column."""
    table = pq.read_table(path)
    column = pa.array(values, kind or table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def test_columns_have_the_types_of_this_version(record: Path) -> None:
    before = rollouts_of(read_table(record))
    rewritten(record, "sample", [0, 1], pa.int64())
    rewritten(record, "engine_logprobs", [[-0.5], [-0.5]], pa.large_list(pa.float64()))
    table = read_table(record)
    assert table.schema.types == [kind for _, kind in FIELDS]
    assert rollouts_of(table) == before
    only = read_table(record, only=["sample"])
    assert only.schema.types == [pa.int32()]


def test_what_a_table_says_beside_its_columns_is_kept(record: Path) -> None:
    table = pq.read_table(record).replace_schema_metadata({"judged_by": "x"})
    pq.write_table(table, record)
    rewritten(record, "group", [0, 0], pa.int64())
    assert read_table(record).schema.metadata[b"judged_by"] == b"x"


@pytest.mark.parametrize(
    ("name", "values", "kind", "said"),
    [
        ("sample", ["a", "b"], pa.string(), "sample is string, it must be int32"),
        ("response_ids", [3, 3], pa.int32(), r"response_ids is int32, it must be list<"),
        ("sample", [1 << 40, 0], pa.int64(), "sample is int64, it must be int32"),
        ("reward", [1.0, None], None, "reward lacks 1 values"),
        ("response_ids", [[3], None], None, "response_ids lacks 1 values"),
        ("engine_logprobs", [[None], [0.0]], None, "engine_logprobs lacks 1 values"),
        ("verdict", ["right", "correct"], None, "a verdict is 'correct', it must be one of right"),
        ("engine_logprobs", [[0.0], []], None, "response_ids and engine_logprobs have unequal len"),
    ],
)
def test_what_no_run_writes_is_one_sentence(
    record: Path, name: str, values: list[Any], kind: pa.DataType | None, said: str
) -> None:
    rewritten(record, name, values, kind)
    with pytest.raises(UserError, match=rf"b\.parquet is no record of rollouts: {said}"):
        read_table(record)


def test_a_problem_may_lack_solution_and_feedback(record: Path) -> None:
    assert read_table(record)["solution"].null_count == 2


def written(folder: Path, credit: Credit | None = None) -> list[dict[str, Any]]:
    sampled, batch, own, _ = step_of()
    write_records(folder, 12, sampled.rollouts, [f"q{r}" for r in range(8)], batch, credit or own)
    table = pq.read_table(folder / "step=000012.parquet")
    assert table.schema.equals(SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_row_per_rollout_and_a_number_per_token(tmp_path: Path) -> None:
    sampled, batch, credit, _ = step_of()
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
    credit = replace(step_of()[2], distillation_BT=weights, advantages_B=None)
    rows = written(tmp_path, credit)
    assert [row["distillation"] for row in rows] == [
        weights[i, :length].tolist() for i, length in enumerate(LENGTHS)
    ]
    assert {row["advantage"] for row in rows} == {None}


def test_half_precision_is_recorded_too(tmp_path: Path) -> None:
    credit = step_of()[2]
    half = replace(credit, advantages_BT=credit.advantages_BT.bfloat16())
    assert written(tmp_path, half)[0]["credit"] == [0.75, 0.75]
