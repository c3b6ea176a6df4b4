"""The table of a run folder: whole at every moment; a step stands there once."""

import csv
from pathlib import Path

from rlrt.training.metrics import StepTable


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_table_drops_the_steps_that_will_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = StepTable(path, 0)
    for step in range(5):
        table.append({"step": step, "value": step / 3})
    resumed = StepTable(path, 3)
    assert [row["step"] for row in read(path)] == ["0", "1", "2"]
    resumed.append({"step": 3, "value": 9.0})
    assert [row["step"] for row in read(path)] == ["0", "1", "2", "3"]
    # kept rows stay as they were written, to the digit
    assert [row["value"] for row in read(path)] == [*(str(step / 3) for step in range(3)), "9.0"]


def test_a_new_run_leaves_nothing_of_an_old_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    StepTable(path, 0).append({"step": 0, "value": 1.0})
    StepTable(path, 0)
    assert not path.exists()


def test_new_columns_are_empty_in_earlier_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = StepTable(path, 0)
    table.append({"step": 0, "a": 1.0})
    table.append({"step": 1, "b, with a comma": 2.0})
    assert read(path) == [
        {"step": "0", "a": "1.0", "b, with a comma": ""},
        {"step": "1", "a": "", "b, with a comma": "2.0"},
    ]


def test_a_row_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    table = StepTable(tmp_path / "metrics.csv", 0)
    row = {"step": 0, "a": 1.0}
    table.append(row)
    row["a"] = 2.0  # the caller goes on with its row
    table.append({"step": 1, "a": 3.0})
    assert [line["a"] for line in read(table.path)] == ["1.0", "3.0"]
