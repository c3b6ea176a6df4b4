"""A report's page and its samples."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.analysis.run_folders import Make, seeded, whole_page
from transformers import PreTrainedTokenizerBase

from rlrt.analysis.pages import pieces_of
from rlrt.analysis.report import HEAD, TAIL, Samples, samples_of
from rlrt.analysis.runs import read_runs


def test_samples_of_a_real_run(run_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    found = samples_of(run_folder, pieces_of(tokenizer))
    assert not found.notes
    assert {row["verdict"] for row in found.rollouts} == {"right", "wrong"}
    for row in found.rollouts:
        tokens = row["tokens"]
        text = "".join(tokens["text"])
        assert text.removesuffix("<|im_end|>") == row["response"]
        assert len(tokens["text"]) == len(tokens["credit"]) == row["length"]
        assert tokens["skipped"] == 0
    right, wrong = found.rollouts[:2]
    assert right["problem"] == wrong["problem"]
    assert any(right["tokens"]["credit"])
    assert found.weights is not None
    assert found.weights["marks"][2] == pytest.approx(1, abs=1e-4)  # a run in float32


def records(run_folder: Path) -> pa.Table:
    return pq.read_table(run_folder / "rollouts" / "step=000002.parquet")


def stored(tmp_path: Path, table: pa.Table) -> Samples:
    (tmp_path / "rollouts").mkdir()
    pq.write_table(table, tmp_path / "rollouts" / "step=000002.parquet")
    return samples_of(tmp_path, None)


def test_the_middle_of_a_long_response_is_left_out(
    run_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = records(run_folder).to_pylist()[0]
    ids = tokenizer.encode("Add 1: 2\n" * 4000, add_special_tokens=False)
    numbers = [float(i) for i in range(len(ids))]
    row |= {"response_ids": ids, "response": tokenizer.decode(ids), "credit": numbers}
    row |= {"engine_logprobs": numbers, "student_logprobs": numbers, "teacher_logprobs": None}
    (tmp_path / "rollouts").mkdir()
    table = pa.Table.from_pylist([row], schema=records(run_folder).schema)
    pq.write_table(table, tmp_path / "rollouts" / "step=000000.parquet")
    [shown] = samples_of(tmp_path, pieces_of(tokenizer)).rollouts
    tokens = shown["tokens"]
    assert len(ids) > 20_000
    assert len(tokens["text"]) == len(tokens["credit"]) == HEAD + TAIL
    assert tokens["skipped"] == len(ids) - HEAD - TAIL
    assert tokens["credit"][HEAD] == len(ids) - TAIL
    assert len(shown["response"]) < 10_000
    assert "more characters" in shown["response"]


def test_without_the_tokenizer_the_text_stands_alone(run_folder: Path, tmp_path: Path) -> None:
    found = stored(tmp_path, records(run_folder))
    assert found.rollouts
    assert all(row["tokens"] is None and row["response"] for row in found.rollouts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["credit"]), "lacks credit"),
        (lambda table: table.set_column(0, "step", pa.array(["x"] * len(table))), "another format"),
        (lambda table: table.set_column(0, "step", pa.nulls(len(table), pa.int32())), "no step"),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("response"),
                "response",
                pa.array([b"\xff"] * len(table)).view(pa.string()),
            ),
            "another format",
        ),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("response_ids"),
                table.schema.field("response_ids"),
                pa.nulls(len(table), pa.list_(pa.int32())),
            ),
            "response_ids lacks",
        ),
    ],
)
def test_records_of_another_format_are_told(
    run_folder: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    found = stored(tmp_path, change(records(run_folder)))
    assert not found.rollouts
    assert said in found.notes[0]


def test_damaged_and_missing_records_are_told(run_folder: Path, tmp_path: Path) -> None:
    assert "no records" in samples_of(tmp_path, None).notes[0]
    shutil.copytree(run_folder / "rollouts", tmp_path / "rollouts")
    (tmp_path / "rollouts" / "step=000002.parquet").write_bytes(b"PAR1 cut short")
    found = samples_of(tmp_path, None)
    assert "step=000002.parquet is no readable parquet file" in found.notes[0]
    assert {row["step"] for row in found.rollouts} <= {0, 1}
    assert found.rollouts
    (tmp_path / "rollouts" / "step=000001.parquet").write_bytes(b"")
    (tmp_path / "rollouts" / "step=000000.parquet").write_bytes(b"")
    nothing = samples_of(tmp_path, None)
    assert nothing.notes[1:] == ("2 more of the last 3 files cannot be read",)


def test_empty_records_hold_no_samples(run_folder: Path, tmp_path: Path) -> None:
    assert not stored(tmp_path, records(run_folder).slice(0, 0)).rollouts


def test_five_long_runs_fit_a_small_page(make: Make) -> None:
    names = [f"stage/quantity_{number}" for number in range(40)]
    rows = [
        ",".join([str(step), *(f"{math.sin(step * (n + 1)):.17g}" for n in range(len(names)))])
        for step in range(1000)
    ]
    table = [",".join(["step", *names]), *rows]
    runs = read_runs([make(f"run{seed}", seeded(seed), table) for seed in range(5)])
    assert len(whole_page(runs).encode()) < 5e6
