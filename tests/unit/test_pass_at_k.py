import json
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.pass_at_k import Answers, count_answers, pass_at_k, pass_curve, powers_of_two


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


@given(st.integers(1, 60), st.data())
def test_equals_the_binomial_formula(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_golden_vectors(shared: Path) -> None:
    for n, c, k, expected in json.loads((shared / "golden/vectors.json").read_text())["pass_at_k"]:
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize("k", [1, 2, 4, 6])
@pytest.mark.parametrize("right", [0, 1, 3])
def test_it_is_the_share_of_subsets_with_a_correct_sample(k: int, right: int) -> None:
    """Unbiased: the mean over all ways to draw k of six samples."""
    drawn = list(combinations([True] * right + [False] * (6 - right), k))
    expected = sum(any(some) for some in drawn) / len(drawn)
    assert pass_at_k(6, right, k) == pytest.approx(expected, abs=1e-12)
