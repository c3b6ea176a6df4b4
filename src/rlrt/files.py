"""Files and folders that are whole at every moment, whenever the process dies."""

import csv
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block.

    PyTorch's writer, interrupted, hides the interrupt behind an error of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is handled there
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if received and callable(handler):
        handler(received[0], None)


@interrupts_wait()
def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a partial file beside ``path``, bring it to disk, and put it in place.

    An interrupt waits until it is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)  # the rename itself


def write_text(path: Path, text: str) -> None:
    r"""A text file that is whole at every moment, in UTF-8 and with ``\n`` on every system."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """A table that is whole at every moment, columns in order of appearance; a missing value is an
    empty cell.
    """
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def put_in_place(new: Path, path: Path) -> None:
    """Give ``new`` the name ``path``, and take away what had it.

    Of files in one step. A folder cannot replace another in one step: where the process dies between
    the two, ``recover`` finds the earlier one.
    """
    if not new.is_dir() and not path.is_dir():
        new.replace(path)
        new.unlink(missing_ok=True)  # two names of one file: replacing does nothing then
    else:
        recover(path)
        earlier = _aside(path)
        remove(earlier)
        if path.exists():
            path.rename(earlier)
        new.rename(path)
        remove(earlier)
    sync(path.parent)


def recover(path: Path) -> None:
    """Bring back what a process that died in ``put_in_place`` had put aside and not replaced."""
    if not path.exists() and _aside(path).exists():
        _aside(path).rename(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; at no moment half of it has its name."""
    if path.is_dir():
        if not path.name.startswith("."):
            path = path.rename(_aside(path))
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file or the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")
