"""Files of a run folder that are whole at every moment, whenever the process dies."""

import csv
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlrt.leader import leads


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
def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
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


class StepTable:
    """A CSV with a ``step`` column that a resumed run continues.

    Rows of ``first_step`` and later, left by a run that went on past its last checkpoint, are
    dropped. The file is rewritten whole at each row: a run has hundreds of rows, and a reader or a
    killed process never sees half of one. Of several ranks the leading one writes.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and first_step > 0:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
        self._write()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; columns not seen before are empty in earlier rows."""
        self.rows.append(dict(row))
        self._write()

    def _write(self) -> None:
        if not leads():
            return
        if not self.rows:
            self.path.unlink(missing_ok=True)
            return
        columns = list(dict.fromkeys(name for row in self.rows for name in row))

        def write(partial: Path) -> None:
            with partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(self.rows)

        write_atomically(self.path, write)
