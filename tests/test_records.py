"""Records found by rollout step and read back; how they are written is in tests/training/test_records.py."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.analysis.evaluations import evaluation_folder

from rlrt.errors import UserError
from rlrt.records import FIELDS, read_table, rollouts_of, step_files


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
