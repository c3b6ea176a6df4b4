"""Lemma 1 and Theorem 2, in worlds that are known completely and at positions of responses."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlrt.analysis.theory import (
    KINDS,
    CheckedNodes,
    Place,
    bayesian_teacher,
    check_worlds,
    disagreement,
    divergence,
    draw,
    estimate,
    hesitations,
    influence,
    make_worlds,
    reading,
    success_after_tokens,
    success_rate,
    summary,
    teachers_by_bayes,
    world_rows,
    world_summary,
)
from rlrt.batch import Problem, Response, Rollout, Verdict


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_vector_of_the_paper() -> None:
    student, success = tensor(0.5, 0.3, 0.2), tensor(0.9, 0.5, 0.1)
    assert float(success_rate(student, success)) == pytest.approx(0.62, abs=1e-15)
    assert disagreement(student, success).tolist() == pytest.approx(
        [-0.372675285285, 0.215111379617, 1.824549292051], abs=1e-12
    )
    assert float(divergence(student, success)) == pytest.approx(0.243105629652706, abs=1e-15)
    assert float(influence(student, success)) == pytest.approx(0.28, abs=1e-15)


unit = st.just(0.0) | st.floats(1e-30, 1)  # below it the loop's products leave the range of float64
probabilities = st.lists(unit, min_size=2, max_size=6).filter(lambda p: sum(p) > 1e-3)


@given(probabilities, st.data())
def test_any_student_and_any_success(weights: list[float], data: st.DataObject) -> None:
    f = data.draw(st.lists(unit, min_size=len(weights), max_size=len(weights)))
    student = [weight / sum(weights) for weight in weights]
    rate = sum(p * q for p, q in zip(student, f, strict=True))
    if rate < 1e-9:
        return
    teacher = [p * q / rate for p, q in zip(student, f, strict=True)]
    arguments = tensor(*student), tensor(*f)
    assert bayesian_teacher(*arguments).tolist() == pytest.approx(teacher)
    inf = sum(p * abs(q - rate) for p, q in zip(student, f, strict=True))
    assert float(influence(*arguments)) == pytest.approx(inf, abs=1e-12)
    # the proof's first step: Inf = f̄ ‖P_S - P_T‖₁
    distance = sum(abs(p - t) for p, t in zip(student, teacher, strict=True))
    assert inf == pytest.approx(rate * distance, abs=1e-12)
    found = float(divergence(*arguments))
    if all(t > 0 for p, t in zip(student, teacher, strict=True) if p > 0):
        kl = sum(p * math.log(p / t) for p, t in zip(student, teacher, strict=True) if p > 0)
        assert found == pytest.approx(kl, abs=1e-9)
    else:
        assert found == math.inf
    assert inf**2 <= 2 * rate**2 * found * (1 + 1e-9) + 1e-20  # sharper than the theorem


@pytest.mark.parametrize("exponent", range(1, 8))
def test_no_smaller_constant_would_do(exponent: int) -> None:
    epsilon = 10.0**-exponent
    pair = tensor(0.5, 0.5), tensor(1, 1 - epsilon)
    ratio = float(influence(*pair) ** 2 / (2 * divergence(*pair)))
    assert 1 - ratio == pytest.approx(epsilon, rel=3 * epsilon + 1e-2)
    assert ratio < 1


def test_equality_where_all_tokens_are_alike_and_only_there() -> None:
    student = tensor(0.5, 0.3, 0.2)
    for level in (1.0, 0.25):
        alike = tensor(level, level, level)
        assert float(influence(student, alike)) == pytest.approx(0, abs=1e-16)
        assert float(divergence(student, alike)) == pytest.approx(0, abs=1e-30)
    # alike where the student chooses: what it never does is not counted
    never = tensor(0.5, 0.5, 0.0), tensor(0.8, 0.8, 0.1)
    assert float(divergence(*never)) == pytest.approx(0, abs=1e-30)


def test_tokens_that_cannot_succeed() -> None:
    student, success = tensor(0.6, 0.4), tensor(0.5, 0.0)
    assert bayesian_teacher(student, success).tolist() == [1.0, 0.0]
    assert disagreement(student, success).tolist() == [pytest.approx(math.log(0.6)), math.inf]
    assert float(divergence(student, success)) == math.inf
    assert float(divergence(tensor(1.0, 0.0), success)) == 0.0  # never chosen
    lost = tensor(0.0, 0.0)
    for undefined in (bayesian_teacher, disagreement, divergence):
        assert undefined(student, lost).isnan().all()
    assert float(influence(student, lost)) == 0.0


def test_many_positions_at_once_are_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64).softmax(-1)
    success = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    for function in (success_rate, bayesian_teacher, disagreement, divergence, influence):
        alone = [[function(student[i, j], success[i, j]) for j in range(4)] for i in range(3)]
        together = torch.stack([torch.stack(row) for row in alone])
        torch.testing.assert_close(function(student, success), together, rtol=1e-12, atol=0)


V, D = 3, 3


def world() -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    students = [
        torch.rand(2, V**d, V, generator=generator, dtype=torch.float64).mul(4).softmax(-1)
        for d in range(D)
    ]
    return students, torch.rand(2, V**D, generator=generator, dtype=torch.float64)


def number(tokens: tuple[int, ...]) -> int:
    found = 0
    for token in tokens:
        found = found * V + token
    return found


def test_both_against_every_response_written_down() -> None:
    students, leaves = world()
    successes, teachers = (
        success_after_tokens(students, leaves),
        teachers_by_bayes(students, leaves),
    )
    for w, d in itertools.product(range(2), range(D)):
        for prefix in itertools.product(range(V), repeat=d):
            right = [0.0] * V  # probability, given the prefix, of token v and a correct end
            for rest in itertools.product(range(V), repeat=D - d):
                chance = 1.0
                for t, token in enumerate(rest):
                    at = number((*prefix, *rest[:t]))
                    chance *= float(students[d + t][w, at, token])
                right[rest[0]] += chance * float(leaves[w, number((*prefix, *rest))])
            node = number(prefix)
            share = students[d][w, node].tolist()
            assert successes[d][w, node].tolist() == pytest.approx(
                [r / p for r, p in zip(right, share, strict=True)], rel=1e-12
            )
            assert teachers[d][w, node].tolist() == pytest.approx(
                [r / sum(right) for r in right], rel=1e-12
            )


def test_below_a_prefix_without_success_there_is_no_teacher() -> None:
    students, leaves = world()
    leaves[0, : V**2] = 0.0  # all that begin with token 0
    success, teacher = success_after_tokens(students, leaves), teachers_by_bayes(students, leaves)
    assert float(success[0][0, 0, 0]) == 0.0
    assert float(teacher[0][0, 0, 0]) == 0.0
    assert teacher[1][0, 0].isnan().all()
    assert not teacher[1][0, 1:].isnan().any()
    assert not teacher[1][1].isnan().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocabulary", "depth"), [(3, 3), (3, 5), (4, 4)])
def test_thousands_of_worlds(kind: str, vocabulary: int, depth: int) -> None:
    rng = np.random.default_rng(vocabulary * depth)
    found = world_summary([check_worlds(*make_worlds(kind, 500, vocabulary, depth, rng))])
    assert found["nodes"] > 500
    assert found["gap"] < 1e-12
    assert found["broken"] == 0
    assert 0 < found["ratio"] < 1
    assert (found["infinite"] > 0) == (kind == "sparse")
    if kind == "pairs":
        assert found["ratio"] > 0.999  # the bound can be as good as reached


def test_a_grid_of_every_student_and_every_success() -> None:
    """All worlds of one token of three and of two of two, with probabilities and success in fifths."""
    fifths = [i / 5 for i in range(6)]
    students = [p for p in itertools.product(fifths, repeat=3) if abs(sum(p) - 1) < 1e-9]
    worlds = list(itertools.product(students, itertools.product(fifths, repeat=3)))
    student = torch.tensor([p for p, _ in worlds], dtype=torch.float64)[:, None]
    leaves = torch.tensor([f for _, f in worlds], dtype=torch.float64)
    found = world_summary([check_worlds([student], leaves)])
    assert found["nodes"] > 4000
    assert found["gap"] < 1e-12
    assert found["broken"] == 0


@given(st.data())
def test_worlds_that_nobody_thought_of(data: st.DataObject) -> None:
    vocabulary, depth = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 3))

    def numbers(count: int) -> list[float]:
        # below 1e-9 products leave the range of float64
        unit = st.sampled_from([0.0, 1.0, 1e-6, 0.5]) | st.floats(1e-9, 1)
        return data.draw(st.lists(unit, min_size=count, max_size=count))

    students = []
    for d in range(depth):
        weights = torch.tensor(numbers(vocabulary ** (d + 1)), dtype=torch.float64)
        weights = weights.reshape(1, -1, vocabulary) + torch.eye(vocabulary)[0].double() * 1e-3
        students.append(weights / weights.sum(-1, keepdim=True))
    leaves = torch.tensor([numbers(vocabulary**depth)], dtype=torch.float64)
    found = world_summary([check_worlds(students, leaves)])
    assert found["broken"] == 0
    assert found["gap"] < 1e-12


def test_what_a_lie_would_look_like() -> None:
    values = [torch.tensor(v, dtype=torch.float64) for v in ([0.5], [0.3], [0.01], [0.0])]
    found = world_summary([CheckedNodes(*values)])
    assert found["broken"] == 1
    assert found["ratio"] == pytest.approx(4.5)


def test_along_a_correct_response_the_disagreements_sum_to_the_success_of_the_start() -> None:
    """Σ_t D̂_t = log f̄ of the start - log of the end's success, whatever way the response takes."""
    students, leaves = make_worlds("any", 1, 3, 4, np.random.default_rng(0))
    successes = success_after_tokens(students, leaves)
    for tokens in ((0, 0, 0, 0), (2, 1, 0, 2), (1, 1, 1, 1)):
        node, total = 0, 0.0
        for d, token in enumerate(tokens):
            rate = float((students[d][0, node] * successes[d][0, node]).sum())
            total += math.log(rate) - math.log(float(successes[d][0, node, token]))
            node = node * 3 + token
        start = float((students[0][0, 0] * successes[0][0, 0]).sum())
        assert total == pytest.approx(math.log(start) - math.log(float(leaves[0, node])))


def test_rows_are_spread_over_all_nodes_and_drawn() -> None:
    values = torch.arange(1, 11, dtype=torch.float64)
    divergence = values.clone()
    divergence[[0, 9]] = torch.tensor([0.0, math.inf], dtype=torch.float64)
    rows = world_rows("any", CheckedNodes(values, values, divergence, values), 4)
    assert [row["divergence"] for row in rows] == [2, 4, 6, 8]
    figure = draw(rows, "")
    assert len(figure.axes) == 1
    assert "Inf² = 2 D̄" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def rollout() -> Rollout:
    problem = Problem(id="p", question="q", answer="1", source="s")
    response = Response((7, 8, 9), (0.0, 0.0, 0.0), truncated=False)
    return Rollout(problem, 0, 0, (1,), response, "", Verdict.RIGHT, 1.0)


def estimated(right: list[list[int]], samples: int, real: float = 0.1) -> dict[str, Any]:
    student = torch.tensor([0.4, 0.2, 0.2])  # 0.8 of the probability
    place = Place(3, rollout(), 5, (7, 8, 9), student, real)
    return estimate(place, torch.tensor(right), samples)


def test_an_estimate_worked_out_by_hand() -> None:
    row = estimated([[2, 1, 0], [2, 0, 0]], 4)
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
    rows = [estimated(rng.binomial(32, f, (2, 3)).tolist(), 64) for _ in range(2000)]
    low = np.mean([row["influence_low"] for row in rows])
    high = np.mean([row["influence"] for row in rows])
    assert low < truth < high


def test_many_samples_come_to_the_truth() -> None:
    student, f = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), torch.tensor([0.9, 0.5, 0.1])
    counts = (f * 500_000).round().long().repeat(2, 1)
    row = estimated(counts.tolist(), 1_000_000)
    assert row["influence"] == pytest.approx(float(influence(student, f.double())), abs=1e-5)
    assert row["influence_low"] == pytest.approx(row["influence"], abs=1e-5)
    assert row["divergence"] == pytest.approx(float(divergence(student, f.double())), abs=1e-4)


def test_alike_tokens_have_no_influence_whatever_the_teacher_says() -> None:
    rows = [estimated([[8, 8, 8], [8, 8, 8]], 16, real) for real in (0.0, 0.2)]
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
    values = {
        "ids": torch.tensor([[7, 1], [8, 2], [9, 3]]),
        "student": torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]]),
        "entropy": torch.tensor([0.3, 0.1, 0.05]),
        "divergence": torch.tensor([0.0, 0.25, 1.0]),
    }
    found = hesitations([1], [rollout(), rollout()], [values], 0.1)
    assert [(place.row, place.position) for place in found] == [(1, 0), (1, 1)]
    assert (found[1].ids_with(0), found[1].ids_with(1)) == ((7, 8), (7, 2))
    assert found[1].divergence == 0.25
    assert hesitations([1], [rollout(), rollout()], [{}], 0.1) == []


def test_policy_positions_are_drawn_on_the_right() -> None:
    row = estimated([[2, 1, 0], [2, 0, 0]], 4)
    figure = draw([row], "a title")
    assert [axes.get_title() for axes in figure.axes][1] == "a title"
