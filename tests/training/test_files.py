"""Files of a run folder: whole at every moment; a step stands there once."""

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlrt.training.files import StepTable, interrupts_wait, write_atomically


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


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"

    def old(partial: Path) -> None:
        partial.write_text("old")

    def half(partial: Path) -> None:
        partial.write_text("ne")
        raise OSError("the disk is full")

    write_atomically(path, old)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """While the new content is written the old stands there, under the same name."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    seen = []

    def write(partial: Path) -> None:
        partial.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a foreground process; where the tests run in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_until_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    steps = []

    def write(partial: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("after the signal")
        partial.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert steps == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("interruptible")
def test_an_ignored_interrupt_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_wait():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
