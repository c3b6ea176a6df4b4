"""Lemma 1 to 1e-12 and Theorem 2 at every node of thousands of worlds, random and adversarial."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlrt.analysis.theory import (
    KINDS,
    Checked,
    check_worlds,
    make_worlds,
    world_rows,
    world_summary,
)
from rlrt.analysis.theory_picture import draw
from rlrt.functional.token_tree import success_after_tokens


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
    found = world_summary([Checked(*values)])
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
    rows = world_rows("any", Checked(values, values, divergence, values), 4)
    assert [row["divergence"] for row in rows] == [2, 4, 6, 8]
    figure = draw(rows, "")
    assert len(figure.axes) == 1
    assert "Inf² = 2 D̄" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
