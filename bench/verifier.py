"""(f) Answers per second of the verifier beside TRL's ``accuracy_reward``, on the same answers.

The two take turns; starts and imports are left out. The answers are the boxed ones of a labeled file
beside the project where it is there, else drawn sums.
"""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from rich.table import Table

from rlrt.batch import Verdict
from rlrt.reward.verifier import Verifier

TITLE = "verifier beside TRL"
LABELED = Path(__file__).resolve().parents[2] / "shared" / "grader_cases" / "d1_llada_math500.jsonl"
REPEATS = 5
Grader = Callable[[Sequence[str], Sequence[str]], list[bool]]


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per grader."""
    if quick or not LABELED.exists():
        return graded("drawn sums", drawn(20 if quick else 800), 1 if quick else REPEATS)
    lines = LABELED.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if r"\boxed" in row["prediction"]]
    return graded("boxed answers to MATH-500", rows, REPEATS)


def drawn(count: int) -> list[dict[str, Any]]:
    """Boxed answers, half of them right."""
    numbers = random.Random(0)
    golds = [numbers.randint(-99, 99) for _ in range(count)]
    return [
        {
            "prediction": rf"So the sum is \boxed{{{gold + row % 2}}}.",
            "gold": str(gold),
            "correct": row % 2 == 0,
        }
        for row, gold in enumerate(golds)
    ]


def by_verifier(verifier: Verifier) -> Grader:
    """The project's verifier: True where it says right."""
    return lambda responses, golds: [
        grade.verdict is Verdict.RIGHT for grade in verifier.grade(responses, golds)
    ]


def by_trl(responses: Sequence[str], golds: Sequence[str]) -> list[bool]:
    """TRL's reward; None (a gold it cannot parse) counts as not right."""
    from trl_side import accuracy_reward  # refuses with a sentence where TRL is missing

    messages = [[{"role": "assistant", "content": response}] for response in responses]
    return [reward == 1.0 for reward in accuracy_reward(messages, list(golds))]


def graded(answers: str, rows: list[dict[str, Any]], repeats: int) -> list[dict[str, Any]]:
    """Seconds of every turn and agreement with ``correct`` of each grader."""
    responses, golds = [row["prediction"] for row in rows], [row["gold"] for row in rows]
    workers = os.cpu_count() or 1
    with Verifier(workers=1) as one, Verifier(workers=workers) as many:
        graders: dict[str, Grader] = {
            "rlrt, 1 worker": by_verifier(one),
            f"rlrt, {workers} workers": by_verifier(many),
            "TRL's accuracy_reward": by_trl,
        }
        seconds: dict[str, list[float]] = {name: [] for name in graders}
        agreement: dict[str, float] = {}
        for turn in range(repeats + 1):  # the first turn starts workers and imports libraries
            for name, grader in graders.items():
                began = time.perf_counter()
                verdicts = grader(responses, golds)
                if turn:
                    seconds[name].append(time.perf_counter() - began)
                same = sum(a == row["correct"] for a, row in zip(verdicts, rows, strict=True))
                agreement[name] = same / len(rows)
    return [
        {
            "grader": name,
            "answers": answers,
            "count": len(rows),
            "seconds": seconds[name],
            "answers_per_s": len(rows) / median(seconds[name]),
            "agreement": agreement[name],
        }
        for name in graders
    ]


def table(rows: list[dict[str, Any]]) -> Table:
    """Answers per second and agreement with the labels."""
    title = f"{TITLE}: {rows[0]['count']} {rows[0]['answers']}"
    output = Table("", "answers/s", "agreement", title=title)
    for row in rows:
        output.add_row(row["grader"], f"{row['answers_per_s']:.0f}", f"{row['agreement']:.2%}")
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Answers per second."""
    axes.barh([row["grader"] for row in rows], [r["answers_per_s"] for r in rows], color="#4477aa")
    axes.set_xlabel("answers per second")
