"""metrics.csv of a run folder, as a Lightning logger."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from rlrt.training.step_table import StepTable


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
