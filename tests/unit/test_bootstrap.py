import numpy as np
import pytest
from scipy import stats

from rlrt.bootstrap import Resampled, mean_of, resample


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
    monkeypatch.setattr("rlrt.bootstrap.CHUNK", 1000)
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
