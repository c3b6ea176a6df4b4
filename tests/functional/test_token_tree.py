"""Success and posterior in worlds that are small enough to write every response down."""

import itertools

import pytest
import torch

from rlrt.functional.token_tree import success_after_tokens, teachers_by_bayes

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
