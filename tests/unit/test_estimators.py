import json
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlrt.estimators import (
    Answers,
    Resampled,
    count_answers,
    mean_of,
    pass_at_k,
    pass_curve,
    powers_of_two,
    resample,
)


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


def slow_loop(values_P: np.ndarray, draws: int) -> tuple[float, float]:
    """The percentile bootstrap, draw by draw, with random numbers of its own."""
    random = np.random.default_rng(99)
    means = []
    for _ in range(draws):
        chosen = [values_P[random.integers(len(values_P))] for _ in values_P]
        means.append(sum(chosen) / len(chosen))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ends(resampled: Resampled) -> np.ndarray:
    return np.array(resampled.interval())


def test_equals_a_slow_loop_and_the_library_up_to_chance() -> None:
    values_P = np.random.default_rng(0).beta(0.5, 0.5, 40)
    resampled = resample(values_P, seed=1)
    assert resampled.mean == pytest.approx(values_P.mean())
    assert ends(resampled) == pytest.approx(np.array(slow_loop(values_P, 4000)), abs=0.01)
    library = stats.bootstrap((values_P,), np.mean, method="percentile", rng=2)
    assert ends(resampled) == pytest.approx(np.array(library.confidence_interval), abs=0.005)


def test_draws_are_repeated_exactly_and_by_the_seed() -> None:
    values_P = np.arange(9.0)
    assert np.array_equal(resample(values_P, 3).draws, resample(values_P, 3).draws)
    assert not np.array_equal(resample(values_P, 3).draws, resample(values_P, 4).draws)


def test_every_shape_is_drawn_alike() -> None:
    values_PV = np.random.default_rng(0).random((7, 2, 3))
    whole, one = resample(values_PV, 5, draws=50), resample(values_PV[:, 1, 2], 5, draws=50)
    assert whole.draws.shape == (50, 2, 3)
    assert whole.draws[:, 1, 2] == pytest.approx(one.draws)
    assert whole.mean == pytest.approx(values_PV.mean(0))


def test_many_problems_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values_P = np.random.default_rng(0).random(100)
    monkeypatch.setattr("rlrt.estimators.CHUNK", 1000)
    resampled = resample(values_P, 0, draws=1001)  # in chunks of 10
    assert resampled.draws.shape == (1001,)
    assert ends(resampled) == pytest.approx(np.array(slow_loop(values_P, 1000)), abs=0.02)


@pytest.mark.parametrize("values", [[0.3], [0.1] * 7, [1.0] * 30, [0.7280219780219781] * 33])
def test_one_problem_or_equal_ones_give_a_point(values: list[float]) -> None:
    resampled = resample(np.array(values), 0)
    low, high = resampled.interval()
    assert low == high == resampled.mean == values[0]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Problems with an unknown difficulty each, asked 8 times: 95 % of intervals hold the true mean."""
    random = np.random.default_rng(0)
    covered = 0
    for number in range(400):
        rates_P = random.beta(1.0, 2.0, 60)  # true mean 1/3
        shares_P = random.binomial(8, rates_P) / 8
        low, high = resample(shares_P, number, draws=500).interval()
        covered += low <= 1 / 3 <= high
    assert 0.92 <= covered / 400 <= 0.975


def test_a_mean_over_strata_weighs_strata_and_not_problems() -> None:
    random = np.random.default_rng(0)
    small_P, large_P = random.random(10), random.random(400) / 10
    mean = mean_of([resample(small_P, 0), resample(large_P, 1)])
    assert mean.mean == pytest.approx((small_P.mean() + large_P.mean()) / 2)
    library = stats.bootstrap(
        (small_P, large_P),
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2,
        method="percentile",
        rng=2,
    )
    assert ends(mean) == pytest.approx(np.array(library.confidence_interval), abs=0.005)
    # far narrower than if strata moved together with all problems of one pool
    assert np.ptp(ends(mean)) < np.ptp(ends(resample(small_P, 0)))
