"""What the tests of the report share."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.analysis.run_folders import CONFIG, EVALUATIONS, METRICS, Make


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run folder of four steps; ``None`` for a file leaves it out."""

    def made(
        name: str = "run",
        config: dict[str, Any] | str | None = CONFIG,
        metrics: list[str] | str | None = METRICS,
        evaluations: list[str] | str | None = EVALUATIONS,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        told = yaml.safe_dump(config) if isinstance(config, dict) else config
        tables = [
            part if isinstance(part, str | None) else "\n".join(part)
            for part in (metrics, evaluations)
        ]
        for file, text in zip(
            ("config.yaml", "metrics.csv", "evaluation.csv"), (told, *tables), strict=True
        ):
            if text is not None:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return made
