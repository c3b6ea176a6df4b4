"""The CSV tables of a run folder, whole at every moment; ``metrics.csv`` among them."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from rlrt.errors import is_rank_zero
from rlrt.files import write_atomically


class StepTable:
    """A CSV with a ``step`` column that a resumed run continues.

    Rows of ``first_step`` and later, left by a run that went on past its last checkpoint, are
    dropped. The file is rewritten whole at each row: a run has hundreds of rows, and a reader or a
    killed process never sees half of one. Of several ranks rank 0 alone writes.
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


class MetricsCSV(Logger):
    """One row per rollout step; a resumed run continues the file, each step stands there once."""

    def __init__(self, folder: str | Path, first_step: int) -> None:
        super().__init__()
        self.table = StepTable(Path(folder) / "metrics.csv", first_step)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration stands in config.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.table.append({"step": step, **metrics})
