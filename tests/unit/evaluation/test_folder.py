"""A folder is written by one process at a time."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tests.paths import ROOT

from rlrt.batch import Response
from rlrt.errors import UserError
from rlrt.evaluation.folder import LOCK, Journal, is_leftover, lock_folder
from rlrt.evaluation.questions import Key

# tries to lock a folder for every line that it reads
OTHER = """
import sys
from pathlib import Path
from rlrt.errors import UserError
from rlrt.evaluation.folder import lock_folder
for line in sys.stdin:
    try:
        with lock_folder(Path(sys.argv[1])):
            print("locked", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


@pytest.mark.slow
def test_a_second_process_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    command = [sys.executable, "-c", OTHER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as other:
        assert other.stdin
        assert other.stdout

        def answer() -> str:
            other.stdin.write("\n")
            return other.stdout.readline()

        with lock_folder(folder):
            said = answer()
            assert said.startswith(f"{folder} is being written by another process: wait until")
            assert answer() == said, "to be refused lifts no lock"
            (folder / "kept").touch()
        assert answer() == "locked\n"
        other.stdin.close()
        assert other.wait(60) == 0
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with lock_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    assert is_leftover(tmp_path / LOCK)
    assert is_leftover(tmp_path / ".config.yaml.partial")
    assert not is_leftover(tmp_path / "config.yaml")
    assert not is_leftover(tmp_path / ".hidden")


def test_folders_that_stay_empty_go_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path / "a" / "b"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place, why in ((file, "File exists"), (file / "below" / "it", "Not a directory")):
        with pytest.raises(UserError, match=rf"cannot be written to \({why}\)"), lock_folder(place):
            pass
    assert list(tmp_path.iterdir()) == [file]


KEYS = [Key("student", "sums", "p/1", sample, "ab12") for sample in range(4)]
RESPONSES = [
    Response((5, 6, n), (-0.1, -2.5e-7, -13.25), n == 1, sampled=(True, n < 2, True) if n else None)
    for n in range(4)
]


def filled(folder: Path) -> Journal:
    journal = Journal(folder / "journal.jsonl", "f00d")
    with journal:
        for key, response in zip(KEYS[:3], RESPONSES, strict=False):
            journal.append(key, response)
    return journal


def test_reads_what_was_written_and_goes_on(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    assert journal.read() == dict(zip(KEYS[:3], RESPONSES, strict=False))
    with journal:
        journal.append(KEYS[3], RESPONSES[3])
    assert journal.read() == dict(zip(KEYS, RESPONSES, strict=True))
    assert len(journal.path.read_text().splitlines()) == 5  # one head


def test_no_journal_holds_nothing_and_reading_makes_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", "f00d")
    assert journal.read() == {}
    assert not journal.path.exists()


def test_cut_anywhere_it_holds_the_whole_lines_and_goes_on(tmp_path: Path) -> None:
    """A kill in the middle of any write, of the head as well."""
    whole = filled(tmp_path).path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    journal = Journal(tmp_path / "cut.jsonl", "f00d")
    for length in [
        *range(ends[0] + 3),
        *range(ends[1] - 2, ends[1] + 3),
        *range(ends[2], len(whole)),
    ]:
        journal.path.write_bytes(whole[:length])
        kept = max(0, sum(end <= length for end in ends) - 1)
        assert journal.read() == dict(zip(KEYS[:kept], RESPONSES, strict=False)), length
        with journal:
            journal.append(KEYS[3], RESPONSES[3])
        expected = dict(zip(KEYS[:kept], RESPONSES, strict=False)) | {KEYS[3]: RESPONSES[3]}
        assert journal.read() == expected, length


def test_logprobs_keep_their_float32_value(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(-3, 3, 500).astype(np.float32)
    response = Response(tuple(range(500)), tuple(float(value) for value in values), False)
    journal = filled(tmp_path)
    with journal:
        journal.append(KEYS[3], response)
    assert (np.float32(journal.read()[KEYS[3]].engine_logprobs) == values).all()


def test_of_another_evaluation(tmp_path: Path) -> None:
    path = filled(tmp_path).path
    with pytest.raises(UserError, match=r"journal.jsonl is the journal of another evaluation"):
        Journal(path, "beef").read()


@pytest.mark.parametrize("damage", [b"{", b'{"view": "student"}', b"\0\0\0\0", b"[1]", b"\xff"])
def test_damaged_in_the_middle(tmp_path: Path, damage: bytes) -> None:
    path = filled(tmp_path).path
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], damage, *lines[3:]]))
    with pytest.raises(UserError, match=r"journal.jsonl is damaged in line 3 \("):
        Journal(path, "f00d").read()


@pytest.mark.slow
def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = filled(tmp_path).path
    limit = path.stat().st_size + 20
    script = """
        import sys
        from pathlib import Path
        from rlrt.config.command_line import report_errors
        from tests.unit.evaluation.test_folder import KEYS, RESPONSES, Journal

        with report_errors(advice="again"), Journal(Path(sys.argv[1]), "f00d") as journal:
            journal.append(KEYS[3], RESPONSES[3])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # where a file may not be whole, Python would leave half of a module's bytecode behind
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.stderr == "error: the disk is full (File too large); again\n"
    assert Journal(path, "f00d").read() == dict(zip(KEYS[:3], RESPONSES, strict=False))


def test_of_an_earlier_format_it_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path).path
    path.write_text(path.read_text().replace('"journal":2', '"journal":1'))
    with pytest.raises(UserError, match=r"journal of another format \(1, it must be 2\)"):
        Journal(path, "f00d").read()


@pytest.mark.parametrize("ids", ["[5,6,1]", '"56"', '"AAAA"', "5", "null", '"A=="'])
def test_ids_that_are_none_are_damage(tmp_path: Path, ids: str) -> None:
    journal = filled(tmp_path)
    lines = journal.path.read_text().splitlines()
    entry = json.loads(lines[2]) | {"ids": json.loads(ids)}
    journal.path.write_text("\n".join([*lines[:2], json.dumps(entry), *lines[3:], ""]))
    with pytest.raises(UserError, match="damaged in line 3"):
        journal.read()
