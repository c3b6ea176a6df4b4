"""How often responses word a doubt, and how long they are, over training (arXiv:2603.24472).

Self-distillation is reported to suppress the words of doubt and to shorten responses.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc
from matplotlib.figure import Figure

from rlrt.analysis import read_data
from rlrt.analysis.runs import Curve, Methods, Run
from rlrt.analysis.training_curves import band_rows, trailing_mean
from rlrt.analysis.training_curves import draw as draw_curves
from rlrt.errors import UserError
from rlrt.records import read_table, step_files

WORDS: list[str] = read_data("doubt_words")
# literals alone: a search takes time linear in the text
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
COLUMNS = ("step", "response", "response_ids")
PANELS = {
    "uncertainty_rate": "words of doubt per 1,000 response tokens",
    "response_tokens": "mean response length, tokens",
}

Row = dict[str, Any]


def uncertainty_rate(texts: Sequence[str], tokens: Sequence[int]) -> float:
    """Occurrences of ``WORDS`` per 1,000 tokens of all responses together; NaN where there is no token.

    Whole words in any case. ``tokens`` are the responses' lengths, their end-of-text token included.
    """
    assert len(texts) == len(tokens), (len(texts), len(tokens))
    count = sum(len(PATTERN.findall(text)) for text in texts)
    return 1000 * count / total if (total := sum(tokens)) else float("nan")


def rate_over_training(run: Run) -> list[Row]:
    """A row per rollout step of a run, from its records: ``step`` and the names of ``PANELS``.

    UserError where a step's records are missing, or have another format.
    """
    rows = [_step(path) for path in step_files(run.folder).values()]
    recorded = [row["step"] for row in rows]
    for metrics in run.metrics:
        if (step := int(metrics["step"])) not in recorded:
            raise UserError(f"{run.folder / 'rollouts'} lacks the records of rollout step {step}")
    return rows


def _step(path: Path) -> Row:
    table = read_table(path, only=COLUMNS)  # the others are most of a file
    if not table.num_rows:
        raise UserError(f"{path} is a record without rollouts")
    texts = table["response"].to_pylist()
    lengths = pc.list_value_length(table["response_ids"]).to_pylist()
    return {
        "step": table["step"][0].as_py(),
        "uncertainty_rate": uncertainty_rate(texts, lengths),
        "response_tokens": fmean(lengths),
    }


def uncertainty(methods: Methods) -> list[Row]:
    """The rows of all runs with their ``method`` and ``seed``."""
    return [
        {"method": name, "seed": run.seed, **row}
        for name, runs in methods.items()
        for run in runs
        for row in rate_over_training(run)
    ]


def draw(rows: Sequence[Mapping[str, Any]], smooth: int) -> Figure:
    """Both curves over rollout steps: a line per method, its band from the lowest to the highest seed.

    Means of the last ``smooth`` steps, over the steps that all runs of a method have.
    """
    bands = []
    for column, title in PANELS.items():
        for method in dict.fromkeys(row["method"] for row in rows):
            by_seed: dict[int, Curve] = {}
            for row in rows:
                if row["method"] == method:
                    by_seed.setdefault(row["seed"], {})[row["step"]] = row[column]
            curves = [trailing_mean(values, smooth) for values in by_seed.values()]
            bands += band_rows(title, method, curves)
    return draw_curves(bands, smooth)
