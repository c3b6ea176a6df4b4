"""Files that are whole at every moment, whenever the process dies."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block.

    PyTorch's writer, interrupted, hides the interrupt behind an error of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is handled there
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if came and callable(before):
        before(came[0], None)


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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    r"""A text file that is whole at every moment, in UTF-8 and with ``\n`` on every system."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))
