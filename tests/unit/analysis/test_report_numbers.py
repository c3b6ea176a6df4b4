"""The curves, the tables and the health of a report."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tests.unit.analysis.run_folders import CONFIG, EVALUATIONS, METRICS, Make, one, whole_page

from rlrt.analysis.report_numbers import (
    checks,
    evaluation_table,
    final_metrics,
    format_number,
    json_number,
    sections,
    stage_seconds,
    thin,
)
from rlrt.analysis.runs import ReportedRun


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
    assert format_number(value) == shown


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
    assert [json_number(v) for v in (0.1234567, 3.0, math.nan, math.inf)] == [
        0.12346,
        3,
        "NaN",
        "∞",
    ]


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


def state_of(run: ReportedRun, title: str) -> tuple[str, str]:
    found = {row[0]: row[2][0] for row in checks([run], [None])}[title]
    return found.state, found.text


def test_health_of_a_run_with_known_numbers(make: Make) -> None:
    run = one(make())
    assert state_of(run, "Sync gap") == ("fine", "3.00e−06 nats at step 1, limit 1.00e−04")
    assert state_of(run, "Numbers") == ("fine", "37 values")
    assert state_of(run, "Truncated responses")[0] == "look"  # (0 + 3 * 0.5) / 4 is above 10 %
    assert state_of(run, "Undecided answers")[0] == "unknown"
    assert state_of(run, "Steps") == ("fine", "4 of 4 done")


@pytest.mark.parametrize(
    ("row", "settings", "title", "state"),
    [
        ("3,1,2e-4,0,3,2,", {}, "Sync gap", "wrong"),
        ("3,1,nan,0,3,2,", {}, "Sync gap", "wrong"),
        ("3,1,2e-4,0,3,2,", {"engine": {"max_logprob_gap": 1e-3}}, "Sync gap", "fine"),
        ("3,1,2e-4,0,3,2,", {"trainer": {}}, "Sync gap", "unknown"),
        ("3,inf,0,0,3,2,", {}, "Numbers", "wrong"),
        ("4,1,0,0,3,2,", {}, "Steps", "look"),
    ],
)
def test_what_is_not_well_is_told(
    make: Make, row: str, settings: dict[str, Any], title: str, state: str
) -> None:
    run = one(make(config=CONFIG | settings, metrics=[*METRICS[:4], row]))
    assert state_of(run, title)[0] == state
    assert "NaN" not in str(sections([run], [])) or "nan" in row
    whole_page([run])  # broken numbers stop nothing


@pytest.mark.parametrize(("mean", "state"), [(0.05, "fine"), (0.25, "fine"), (0.3, "wrong")])
def test_in_bfloat16_the_mean_tells(make: Make, mean: float, state: str) -> None:
    config = CONFIG | {"trainer": {"precision": "bf16-mixed"}}
    table = ["step,sync/logprob_gap,sync/logprob_gap_mean", f"0,2.5,{mean}"]
    run = one(make(config=config, metrics=table))
    assert state_of(run, "Sync gap") == (state, f"{mean:g} nats at step 0, limit 0.25")


def rows(column: str, values: Sequence[float]) -> list[str]:
    return [f"step,{column}", *(f"{step},{value!r}" for step, value in enumerate(values))]


@pytest.mark.parametrize(
    ("column", "title", "values", "state"),
    [
        ("sync/logprob_gap", "Sync gap", [1e-4], "fine"),  # the limit of float32
        ("sync/logprob_gap", "Sync gap", [1.001e-4, 0.0], "wrong"),
        ("update/ratio_mean", "Importance ratio", [1.0999, 0.9001], "fine"),
        ("update/ratio_mean", "Importance ratio", [1.1001, 1.0], "look"),
        ("update/ratio_mean", "Importance ratio", [0.8999, 1.0], "look"),
        ("update/clip_fraction", "Clipped tokens", [0.2], "fine"),
        ("update/clip_fraction", "Clipped tokens", [0.201], "look"),
        ("rollout/zero_signal_groups", "Groups without signal", [0.8], "fine"),
        ("rollout/zero_signal_groups", "Groups without signal", [0.801], "look"),
        ("reward/undecided", "Undecided answers", [0.01], "fine"),
        ("reward/undecided", "Undecided answers", [0.011], "look"),
        ("rollout/truncated", "Truncated responses", [0.1], "fine"),
        ("rollout/truncated", "Truncated responses", [0.101], "look"),
        ("rollout/truncated", "Truncated responses", [1.0, *[0.0] * 10], "fine"),  # the last 10
        ("rollout/truncated", "Truncated responses", [0.0, 1.01, *[0.0] * 9], "look"),
    ],
)
def test_rules_hold_up_to_their_borders(
    make: Make, column: str, title: str, values: list[float], state: str
) -> None:
    assert state_of(one(make(metrics=rows(column, values))), title)[0] == state


@pytest.mark.parametrize(("above", "state"), [(1, "fine"), (2, "look")])
def test_one_weight_in_a_hundred_may_lie_above_the_limit(
    make: Make, above: int, state: str
) -> None:
    values = np.array([2.0] * (100 - above) + [2.01] * above)  # the limit is 2.0
    weights = {"step": 3, "tokens": 100, "marks": [2.0] * 4 + [2.01], "values": values}
    found = {row[0]: row[2][0] for row in checks([one(make())], [weights])}
    assert found["Importance weights"].state == state


def test_seconds_of_stages_add_up(make: Make) -> None:
    # steps of 3 s, 1.5 s of them sampling on average; an evaluation of 8 s in one of four
    assert stage_seconds(one(make())) == {"rollout": 1.5, "other": 1.5, "evaluation": 2.0}
