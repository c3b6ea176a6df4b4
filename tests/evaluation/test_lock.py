"""A folder is written by one process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlrt.errors import UserError
from rlrt.evaluation.lock import LOCK, alone, leftover

OTHER = """
import sys; from pathlib import Path; from rlrt.evaluation.lock import alone
with alone(Path(sys.argv[1])): pass
"""


def another(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", OTHER, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_second_process_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with alone(folder):
        said = another(folder).stderr
        assert f"UserError: {folder} is being written by another process: wait until" in said
        assert another(folder).stderr == said, "to be refused lifts no lock"
        (folder / "kept").touch()
    assert another(folder).returncode == 0
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    assert leftover(tmp_path / LOCK)
    assert leftover(tmp_path / ".config.yaml.partial")
    assert not leftover(tmp_path / "config.yaml")
    assert not leftover(tmp_path / ".hidden")


def test_folders_that_stay_empty_go_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "a" / "b"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place, why in ((file, "File exists"), (file / "below" / "it", "Not a directory")):
        with pytest.raises(UserError, match=rf"cannot be written to \({why}\)"), alone(place):
            pass
    assert list(tmp_path.iterdir()) == [file]
