"""Answers per second of the verifier beside TRL's ``accuracy_reward``, on the same rows in one run.

``python bench/verifier.py ROWS.jsonl [--workers N] [--repeats N] [--out FILE]``: ROWS are lines of
prediction, gold and correct. The two take turns; the median of the repeats is shown, starts and
imports left out. TRL is a dependency of this benchmark only (the extra ``bench``).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from trl.rewards import accuracy_reward

from rlrt.batch import Verdict
from rlrt.reward.verifier import Verifier

Grader = Callable[[Sequence[str], Sequence[str]], list[bool]]


def by_verifier(verifier: Verifier) -> Grader:
    """The project's verifier: True where it says right."""
    return lambda responses, golds: [
        judgement.verdict is Verdict.RIGHT for judgement in verifier.grade(responses, golds)
    ]


def by_trl(responses: Sequence[str], golds: Sequence[str]) -> list[bool]:
    """TRL's reward; None (a gold it cannot parse) counts as not right."""
    messages = [[{"role": "assistant", "content": response}] for response in responses]
    return [reward == 1.0 for reward in accuracy_reward(messages, list(golds))]


def main() -> None:
    """Print the table and, with ``--out``, write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if r"\boxed" in row["prediction"]]
    figures = measure(rows, options.workers, options.repeats)
    table = Table(
        "", "answers/s", "agreement", title=f"{options.rows.name}: {len(rows)} boxed rows"
    )
    for name, figure in figures.items():
        table.add_row(name, f"{figure['answers_per_s']:.0f}", f"{figure['agreement']:.2%}")
    Console().print(table)
    if options.out is not None:
        options.out.write_text(json.dumps({"rows": len(rows), "graders": figures}, indent=1) + "\n")


def measure(rows: list[dict[str, str]], workers: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median answers per second and agreement with ``correct`` of each grader, taking turns."""
    responses, golds = [row["prediction"] for row in rows], [row["gold"] for row in rows]
    with Verifier(workers=1) as one, Verifier(workers=workers) as many:
        graders: dict[str, Grader] = {
            "rlrt, 1 worker": by_verifier(one),
            f"rlrt, {workers} workers": by_verifier(many),
            f"trl {version('trl')} accuracy_reward": by_trl,
        }
        seconds: dict[str, list[float]] = {name: [] for name in graders}
        agreement: dict[str, float] = {}
        for turn in range(repeats + 1):  # the first turn starts workers and imports libraries
            for name, grader in graders.items():
                began = time.perf_counter()
                found = grader(responses, golds)
                if turn:
                    seconds[name].append(time.perf_counter() - began)
                same = sum(a == row["correct"] for a, row in zip(found, rows, strict=True))
                agreement[name] = same / len(rows)
    return {
        name: {
            "answers_per_s": len(rows) / median(seconds[name]),
            "agreement": agreement[name],
        }
        for name in graders
    }


if __name__ == "__main__":
    main()
