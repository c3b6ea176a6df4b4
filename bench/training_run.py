"""A real training run of the project in a child process, by its own command."""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATE = 1e-8  # so low that the responses keep their lengths from step to step


def training_rows(overrides: list[str], steps: int) -> list[dict[str, float]]:
    """The metrics of every rollout step of models/tiny on arithmetic; evaluation is kept short."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(ROOT / "src" / "rlrt" / "train.py"), "model=tiny"),
            *("logger=none", "evaluation.max_problems=2", "evaluation.every_n_steps=null"),
            f"training.rollout_steps={steps}",
            f"training.optimization.learning_rate={LEARNING_RATE}",
            f"hydra.run.dir={folder}/run",
            *overrides,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(overrides)} failed:\n{done.stdout[-2000:]}")
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]
