"""Agreement with other projects' grader tests and with labeled model outputs.

Rows whose note starts with "policy" or "QUIRK" hang on a convention and are not scored. Every other
disagreement stands in the table below with its reason; the tests assert that there are no others.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlrt.batch import Verdict
from rlrt.reward.verifier import Verifier

NO_BOX = "labeled by the last box only, and there is none; the final answer in the text is right"
DECIMAL_COMMA = "a comma between digits separates thousands or list items, never decimals"
ANY_MATH = "upstream searches LaTeX on one line only; here the 9 counts, as it should"
BROKEN = "unbalanced dollars or braces: upstream matches a stray number"
UNJOINED = "two boxes with words between them: the last one is the answer"
DISAGREEMENTS: dict[str, dict[int, str]] = {
    "areal": {47: r"math-verify parses no \bmod; upstream takes the last number of what it cannot"},
    "d1_llada_math500": dict.fromkeys((119, 365, 532, 592), NO_BOX),
    "gold_variants": {},
    "gsm8k_openai": {},
    "math_verify": {
        6: DECIMAL_COMMA,
        7: DECIMAL_COMMA,
        29: ANY_MATH,
        30: ANY_MATH,
        59: BROKEN,
        167: BROKEN,
        184: BROKEN,
        229: UNJOINED,
        239: UNJOINED,
    },
    "nemo_skills": {},
    "olympiadbench": {
        6: r"math-verify reads I_{\max} = … as an equation on the imaginary unit, no assignment",
        24: r"math-verify does not parse n_{\gamma}(\nu) = … with \odot subscripts",
    },
    "rl_frameworks": {},
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=10.0, extract="boxed_or_text") as verifier:
        yield verifier


def read(shared: Path, name: str) -> list[dict[str, Any]]:
    lines = (shared / "grader_cases" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def verdicts(verifier: Verifier, rows: list[dict[str, Any]]) -> list[Verdict]:
    judged = verifier.grade([row["prediction"] for row in rows], [row["gold"] for row in rows])
    return [grade.verdict for grade in judged]


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_every_disagreement_is_explained(name: str, shared: Path, verifier: Verifier) -> None:
    rows = read(shared, name)
    disagreements = {
        line
        for line, (row, verdict) in enumerate(
            zip(rows, verdicts(verifier, rows), strict=True), start=1
        )
        if not row["note"].startswith(("policy", "QUIRK"))
        and (verdict is Verdict.RIGHT) != row["correct"]
    }
    assert disagreements == set(DISAGREEMENTS[name])


def test_boxed_answers_agree_without_exception_under_the_training_rule(shared: Path) -> None:
    rows = read(shared, "d1_llada_math500")
    with Verifier(workers=2, timeout_s=10.0) as verifier:
        found = [verdict is Verdict.RIGHT for verdict in verdicts(verifier, rows)]
    assert found == [row["correct"] for row in rows]


def test_a_verdict_does_not_depend_on_what_was_judged_before(
    shared: Path, verifier: Verifier
) -> None:
    rows = read(shared, "math_verify")[::3]
    order = random.Random(0).sample(range(len(rows)), len(rows))
    shuffled = verdicts(verifier, [rows[index] for index in order])
    straight = verdicts(verifier, rows)
    assert shuffled == [straight[index] for index in order]
