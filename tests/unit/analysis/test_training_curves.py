"""Curves over seeds, worked out by hand; labels that stay apart."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.analysis.runs import Run
from rlrt.analysis.training_curves import (
    curve_rows,
    draw,
    ends_of,
    spread,
    title_of,
    trailing_mean,
)
from rlrt.errors import UserError


def run(seed: int, rewards: dict[int, float], scores: dict[int, float]) -> Run:
    return Run(
        Path(f"run{seed}"),
        seed,
        {"credit._target_": "rlrt.credit.rlrt.RLRT"},
        [{"step": float(step), "reward/mean": value} for step, value in rewards.items()],
        [{"step": float(step), "avg@8": value} for step, value in scores.items()],
    )


def test_trailing_mean_of_values_worked_out_by_hand() -> None:
    values = {0: 1.0, 1: 3.0, 2: 5.0, 5: 0.0}
    assert trailing_mean(values, 2) == {0: 1.0, 1: 2.0, 2: 4.0, 5: 2.5}
    assert trailing_mean(values, 1) == values


def test_a_mean_and_a_band_at_the_steps_that_all_seeds_have() -> None:
    methods = {
        "rlrt": [run(0, {0: 0.0, 1: 1.0}, {0: 0.2, 2: 0.8}), run(1, {0: 0.5, 1: 0.7, 2: 1.0}, {})],
    }
    first, second = curve_rows(methods, ["reward/mean"], 2)
    assert first == {
        "column": "reward/mean",
        "method": "rlrt",
        "step": 0,
        "mean": 0.25,
        "lowest": 0.0,
        "highest": 0.5,
        "seeds": 2,
    }
    # a mean of two steps each: 0.5 of 0 and 1, 0.6 of 0.5 and 0.7
    assert [second[name] for name in ("step", "mean", "lowest", "highest")] == [
        1,
        pytest.approx(0.55),
        0.5,
        pytest.approx(0.6),
    ]


def test_evaluations_are_not_averaged_over_steps() -> None:
    rows = curve_rows({"rlrt": [run(0, {0: 0.0}, {0: 0.2, 2: 0.8})]}, ["avg@8"], 5)
    assert [(row["step"], row["mean"]) for row in rows] == [(0, 0.2), (2, 0.8)]


def test_what_cannot_be_drawn_is_named() -> None:
    apart = {"rlrt": [run(0, {0: 1.0}, {}), run(1, {1: 1.0}, {})]}
    with pytest.raises(UserError, match="runs of rlrt have no rollout step of reward/mean"):
        curve_rows(apart, ["reward/mean"], 1)
    with pytest.raises(UserError, match="run0 has no column reward/men"):
        curve_rows(apart, ["reward/men"], 1)


def test_every_line_is_named_in_every_panel() -> None:
    methods = {
        name: [run(0, {0: 0.1, 1: at}, {0: 0.2, 2: at})] for name, at in (("a", 0.5), ("b", 0.5))
    }
    figure = draw(curve_rows(methods, ["avg@8", "reward/mean"], 3), 3)
    named = [
        (axes.get_title(), {text.get_text() for text in axes.texts} - {""}) for axes in figure.axes
    ]
    # the training column ends at the mean of 0.1 and 0.5
    assert named == [
        ("held-out avg@8", {"0.500 a", "0.500 b"}),
        ("training reward, mean", {"0.300 a", "0.300 b"}),
    ]
    looks = {
        (line.get_color(), line.get_linestyle(), line.get_marker())
        for line in figure.axes[0].lines
        if len(line.get_xdata()) > 1
    }
    assert len(looks) == 2
    assert len({dash for _, dash, _ in looks}) == 2  # told apart without color too
    note = figure.get_supxlabel()
    assert note == "one seed; in training: mean of the last 3 steps"


def test_a_column_without_a_title_is_called_by_its_name() -> None:
    assert title_of("rlrt/weight_mean") == "rlrt/weight_mean"
    assert title_of("pass@4") == "held-out pass@4"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.968, 0.97], ["0.968", "0.970"]),
        ([1.0, 0.9964], ["1.000", "0.996"]),
        ([32.94, 9.5], ["32.9", "9.5"]),
        ([1500.0, 3.0], ["1500", "3"]),
        ([0.0, 0.0], ["0", "0"]),
        ([0.0123, float("nan")], ["0.0123", "nan"]),
    ],
)
def test_numbers_at_line_ends_have_equally_many_decimals(
    values: list[float], shown: list[str]
) -> None:
    assert ends_of(values) == shown


def test_labels_that_touch_move_apart_about_their_middle() -> None:
    assert spread([0.5, 0.4, 0.9], 0.2) == pytest.approx([0.55, 0.35, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.1, 0.9], 0.1) == [0.1, 0.9]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_keep_their_order_and_their_distance(values: list[float]) -> None:
    placed = spread(values, 0.1)
    by_value = sorted(range(len(values)), key=lambda i: values[i])
    assert all(placed[b] - placed[a] >= 0.1 - 1e-9 for a, b in pairwise(by_value))
    assert sum(placed) == pytest.approx(sum(values))
