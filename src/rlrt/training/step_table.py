"""A table of a run folder that is whole at every moment."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlrt.errors import is_rank_zero
from rlrt.files import write_atomically


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
        if not is_rank_zero():
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
