"""The numbers of a report: curves and tables."""

import math

import pytest
from tests.analysis.report.folders import EVALUATIONS, METRICS, Make, one

from rlrt.analysis.report.charts import evaluation_table, final_metrics, plain, sections, thin, told


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-3.5e-6, "−3.50e−06"),
        (12345.6, "12,346"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_are_told_in_four_digits(value: float | None, shown: str) -> None:
    assert told(value) == shown


def test_a_long_curve_keeps_its_ends_its_peaks_and_its_broken_numbers() -> None:
    points = [(step, float(step % 7)) for step in range(10_000)]
    points[5001], points[6001], points[7001] = (5001, 99.0), (6001, -99.0), (7001, math.nan)
    kept = thin(points, 300)
    assert len(kept) <= 300
    assert kept == sorted(kept, key=lambda point: point[0])
    assert {points[0], points[-1], points[5001], points[6001], points[7001]} <= set(kept)
    assert set(kept) <= set(points)  # nothing is averaged
    assert thin(points[:300], 300) == points[:300]


def test_json_gets_numbers_it_has() -> None:
    assert [plain(v) for v in (0.1234567, 3.0, math.nan, math.inf)] == [0.12346, 3, "NaN", "∞"]


def test_every_column_has_one_chart(make: Make) -> None:
    run = one(make())
    charts = [chart for part in sections([run], [1e-4]).values() for chart in part]
    columns = [(chart.column, chart.held_out) for chart in charts]
    expected = [(name, False) for name in METRICS[0].split(",")[1:]]
    expected += [(name, True) for name in EVALUATIONS[0].split(",")[1:]]
    assert sorted(columns) == sorted(expected)
    assert [chart.number for chart in charts] == list(range(len(charts)))
    reward = next(chart for chart in charts if chart.column == "reward/mean")
    assert reward.curves == [
        {"run": 0, "x": [0, 1, 2, 3], "y": [0.25, 0.5, 0.75, 1], "thinned": False}
    ]
    assert reward.table == [["0", "0.25"], ["1", "0.5"], ["2", "0.75"], ["3", "1"]]


def test_first_best_and_last_evaluation(make: Make) -> None:
    headings, rows = evaluation_table(one(make()))
    assert headings == ["", "step", "avg@2", "pass@1", "pass@2"]
    assert [row[:3] for row in rows] == [
        ["first", "0", "0.4"],
        ["best", "2", "0.9"],
        ["last", "4", "0.8"],
    ]


def test_means_of_the_first_and_the_last_steps(make: Make) -> None:
    rows = [f"{step},{step}" for step in range(20)]
    run = one(make(metrics=["step,a", *rows]))
    assert final_metrics([run]) == [("a", [("2", "17")])]  # of 0 to 4, of 15 to 19
