import json
from pathlib import Path

import numpy as np
import pytest

from rlrt.functional.answers import Answers, count_answers, pass_curve, powers_of_two


def test_problems_stand_in_the_order_of_their_ids() -> None:
    answers = [("b", 0, True), ("a", 1, False), ("a", 0, True), ("b", 1, True)]
    counted = count_answers(answers)
    assert counted.problem_ids == ("a", "b")
    assert counted.samples == 2
    assert counted.correct_P.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([("a", 0, True), ("a", 1, True), ("b", 0, True)], "1 samples of problem b and 2 of a"),
        ([("a", 0, True), ("a", 0, False)], "sample 0 of problem a twice"),
        ([], "no answers"),
    ],
)
def test_answers_that_cannot_be_counted(
    answers: list[tuple[str, int, bool]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^holds {sentence}"):
        count_answers(answers)


@pytest.mark.parametrize(
    ("samples", "ks"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_ks_are_the_powers_of_two_and_all_samples(samples: int, ks: tuple[int, ...]) -> None:
    assert powers_of_two(samples) == ks


VECTORS = [  # of the unbiased estimator 1 - C(n-c, k) / C(n, k), worked out by hand
    (16, 1, 8, 0.5),
    (16, 4, 4, 0.7280219780219781),
    (256, 3, 16, 0.1766732283464567),
    (256, 3, 256, 1.0),
    (4, 2, 2, 0.8333333333333334),
]


@pytest.mark.parametrize(("n", "c", "k", "expected"), VECTORS)
def test_a_curve_holds_the_unbiased_estimate(n: int, c: int, k: int, expected: float) -> None:
    answers = Answers(("a", "b", "c"), n, np.array([0, c, n]))
    curve_PK = pass_curve(answers, [k])
    assert curve_PK == pytest.approx(np.array([[0.0], [expected], [1.0]]), abs=1e-12)


def test_a_curve_holds_the_shared_vectors(shared: Path) -> None:
    for n, c, k, expected in json.loads((shared / "golden/vectors.json").read_text())["pass_at_k"]:
        curve_PK = pass_curve(Answers(("a",), n, np.array([c])), [1, k])
        assert curve_PK == pytest.approx(np.array([[c / n, expected]]), abs=1e-12)
