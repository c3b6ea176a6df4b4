"""Estimates at sampled positions: exact where the counts are, and between their two sides elsewhere."""

import math

import numpy as np
import pytest
import torch

from rlrt.analysis.theory_picture import draw
from rlrt.analysis.theory_positions import Sampled, estimate, hesitations, reading, summary
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.functional.bayesian_teacher import divergence, influence


def sampled(right: list[list[int]], samples: int, real: float = 0.1) -> Sampled:
    student = torch.tensor([0.4, 0.2, 0.2])  # 0.8 of the probability
    return Sampled(3, 5, student, torch.tensor(right), samples, real)


def test_an_estimate_worked_out_by_hand() -> None:
    row = estimate(sampled([[2, 1, 0], [2, 0, 0]], 4))
    # f = (4.5, 1.5, 0.5) / 5 with P_S = (1/2, 1/4, 1/4): f̄ = 0.55, Inf = (0.35 · 2 + 0.25 + 0.45) / 4
    assert row["success_rate"] == pytest.approx(0.55)
    assert row["influence"] == pytest.approx(0.35)
    expected = -math.log(0.9) / 2 - math.log(0.3) / 4 - math.log(0.1) / 4 + math.log(0.55)
    assert row["divergence"] == pytest.approx(expected)
    # signs (+, -, -) have mean 0, so Inf = f₀/2 - f₁/4 - f₂/4
    variance = (0.09 / 4 + 0.21 / 16 + 0.09 / 16) / 4
    assert row["influence_error"] == pytest.approx(math.sqrt(variance))
    # halves: f = (1, 1/2, 0) and (1, 0, 0), f̄ = 5/8 and 1/2; the second half's signs on the first's
    # values give (3/8 · 2 + 1/8 + 5/8) / 4, the first half's on the second's (1/2 · 2 + 1/2 + 1/2) / 4
    assert row["influence_low"] == pytest.approx((1.5 / 4 + 2 / 4) / 2)
    assert (row["covered"], row["tokens"]) == (pytest.approx(0.8), 3)
    assert (row["rollout"], row["position"], row["teacher_divergence"]) == (3, 5, 0.1)


def test_the_two_estimates_stand_on_either_side_of_the_truth() -> None:
    rng = np.random.default_rng(0)
    student = torch.tensor([0.4, 0.2, 0.2], dtype=torch.float64)
    f = np.array([0.55, 0.5, 0.45])  # so alike that noise counts
    truth = float(influence(student / 0.8, torch.from_numpy(f)))
    rows = [estimate(sampled(rng.binomial(32, f, (2, 3)).tolist(), 64)) for _ in range(2000)]
    low = np.mean([row["influence_low"] for row in rows])
    high = np.mean([row["influence"] for row in rows])
    assert low < truth < high


def test_many_samples_come_to_the_truth() -> None:
    student, f = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), torch.tensor([0.9, 0.5, 0.1])
    counts = (f * 500_000).round().long().repeat(2, 1)
    row = estimate(sampled(counts.tolist(), 1_000_000))
    assert row["influence"] == pytest.approx(float(influence(student, f.double())), abs=1e-5)
    assert row["influence_low"] == pytest.approx(row["influence"], abs=1e-5)
    assert row["divergence"] == pytest.approx(float(divergence(student, f.double())), abs=1e-4)


def test_alike_tokens_have_no_influence_whatever_the_teacher_says() -> None:
    rows = [estimate(sampled([[8, 8, 8], [8, 8, 8]], 16, real)) for real in (0.0, 0.2)]
    assert all(row["influence"] == pytest.approx(0, abs=1e-15) for row in rows)
    found = summary(rows)
    assert (found["holds_low"], found["broken"]) == (1, 0)
    assert math.isnan(found["rank"])


def test_a_summary_worked_out_by_hand() -> None:
    rows = [
        {
            "covered": 1.0,
            "influence": 0.2,
            "influence_low": low,
            "influence_error": 0.02,
            "divergence": 0.04 + number,
            "teacher_divergence": real,
        }
        for number, (low, real) in enumerate(
            [(0.18, 0.001), (0.05, 0.001), (-0.1, 0.5), (0.2, 0.2)]
        )
    ]
    found = summary(rows)
    assert found["positions"] == 4
    assert found["holds"] == 0.5
    assert found["holds_low"] == 0.5  # 0.05² is above 0.002 too
    assert found["broken"] == 0.25  # 0.05 - 2 · 0.02 is not
    assert found["ratio_real"] == pytest.approx((0.04 / 0.4 + 0.04 / 0.002) / 2)


def test_a_reading_has_the_likeliest_tokens_and_both_measures() -> None:
    student = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]).log()
    teacher = torch.tensor([[0.3, 0.5, 0.2], [0.5, 0.25, 0.25]]).log()
    values = reading(2)(student, teacher, torch.tensor([0, 0]))
    assert values["ids"][0].tolist() == [1, 2]
    assert values["student"][0].tolist() == pytest.approx([0.5, 0.3])
    entropy = -sum(p * math.log(p) for p in (0.2, 0.5, 0.3))
    assert values["entropy"].tolist() == pytest.approx([entropy, 0.0])
    expected = [0.2 * math.log(0.2 / 0.3) + 0.3 * math.log(0.3 / 0.2), math.log(2)]
    assert values["divergence"].tolist() == pytest.approx(expected)


def test_positions_are_those_where_the_student_hesitates() -> None:
    problem = Problem(id="p", question="q", answer="1", source="s")
    response = Response((7, 8, 9), (0.0, 0.0, 0.0), truncated=False)
    rollout = Rollout(problem, 0, 0, (1,), response, "", Verdict.RIGHT, 1.0)
    values = {
        "ids": torch.tensor([[7, 1], [8, 2], [9, 3]]),
        "student": torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]]),
        "entropy": torch.tensor([0.3, 0.1, 0.05]),
        "divergence": torch.tensor([0.0, 0.25, 1.0]),
    }
    found = hesitations([1], [rollout, rollout], [values], 0.1)
    assert [(place.row, place.position) for place in found] == [(1, 0), (1, 1)]
    assert (found[1].ids_with(0), found[1].ids_with(1)) == ((7, 8), (7, 2))
    assert found[1].divergence == 0.25
    assert hesitations([1], [rollout, rollout], [{}], 0.1) == []


def test_policy_positions_are_drawn_on_the_right() -> None:
    row = estimate(sampled([[2, 1, 0], [2, 0, 0]], 4))
    figure = draw([row], "a title")
    assert [axes.get_title() for axes in figure.axes][1] == "a title"
