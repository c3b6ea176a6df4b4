"""Files that are whole at every moment."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlrt.files import interrupts_wait, write_atomically, write_text


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


def test_text_is_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """Where a text has no UTF-8 the one before it stays."""
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    write_text(path, "ü\n漢\r\n")
    assert path.read_bytes() == b"\xc3\xbc\n\xe6\xbc\xa2\r\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_bytes().startswith(b"\xc3")
    assert list(path.parent.iterdir()) == [path]


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
