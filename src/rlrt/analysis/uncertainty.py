"""How often responses word a doubt, and how long they are, over training (arXiv:2603.24472).

Self-distillation is reported to suppress the words of doubt and to shorten responses.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlrt.analysis.figures import COLOURS
from rlrt.analysis.runs import Methods, Run
from rlrt.errors import UserError
from rlrt.records import read_table, record_files

# the ten words that arXiv:2603.24472 counts
WORDS = (
    "wait", "hmm", "perhaps", "maybe", "actually",
    "alternatively", "seems", "might", "likely", "check",
)  # fmt: skip
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
    found = sum(len(PATTERN.findall(text)) for text in texts)
    return 1000 * found / total if (total := sum(tokens)) else float("nan")


def rate_over_training(run: Run) -> list[Row]:
    """A row per rollout step of a run, from its records: ``step`` and the names of ``PANELS``.

    UserError where a step's records are missing, or have another format.
    """
    rows = [_step(path) for path in record_files(run.folder)]
    there = [row["step"] for row in rows]
    for metrics in run.metrics:
        if (step := int(metrics["step"])) not in there:
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


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """Each value averaged with up to ``window - 1`` before it."""
    return [fmean(values[max(i + 1 - window, 0) : i + 1]) for i in range(len(values))]


def draw(rows: Sequence[Mapping[str, Any]], smooth: int) -> Figure:
    """Both curves over rollout steps: a line per method, its band from the lowest to the highest seed.

    Means of the last ``smooth`` steps, over the steps that all runs of a method have.
    """
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, (column, title) in zip(panels, PANELS.items(), strict=True):
        for number, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
            chosen = [row for row in rows if row["method"] == name]
            _band(axes, name, COLOURS[number % len(COLOURS)], chosen, column, smooth)
        axes.set(title=title, xlabel="rollout steps")
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"mean of the last {smooth} steps" if smooth > 1 else "")
    return figure


def _band(
    axes: Axes,
    name: str,
    colour: str,
    rows: Sequence[Mapping[str, Any]],
    column: str,
    smooth: int,
) -> None:
    by_seed: dict[int, dict[int, float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], {})[row["step"]] = row[column]
    steps = sorted(set.intersection(*(set(values) for values in by_seed.values())))
    curves = [trailing_mean([c[step] for step in steps], smooth) for c in by_seed.values()]
    columns = list(zip(*curves, strict=True))
    label = f"{name}, {len(curves)} seeds: mean, min–max" if len(curves) > 1 else name
    axes.plot(steps, [fmean(column) for column in columns], color=colour, lw=1.8, label=label)
    axes.fill_between(
        steps, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.2, lw=0
    )
