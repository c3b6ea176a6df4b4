"""Whose weights score the teacher view, step after step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.paths import TINY
from transformers import PreTrainedModel

from rlrt.model.teacher import EMA, Copied, Frozen, Live, Separate, Teacher

MakePolicy = Callable[[torch.dtype], PreTrainedModel]


def first(policy: PreTrainedModel) -> float:
    return float(next(policy.parameters()).detach().flatten()[0])


@torch.no_grad()
def walk(teacher: Teacher, policy: PreTrainedModel, steps: int) -> list[float]:
    """The teacher's first weight after each rollout step; the policy's grows by 1 every step."""
    weights = teacher.start(policy)
    seen = []
    for done in range(1, steps + 1):
        for parameter in policy.parameters():
            parameter += 1
        teacher.follow(weights, policy, done)
        seen.append(first(weights))
    return seen


@pytest.mark.parametrize(
    ("teacher", "moves"),
    [
        (Live(), [1, 2, 3, 4, 5]),
        (Frozen(), [0, 0, 0, 0, 0]),
        (Copied(2), [0, 2, 2, 4, 4]),
        (EMA(0.0), [0, 0, 0, 0, 0]),
        (EMA(1.0), [1, 2, 3, 4, 5]),
        (EMA(0.5), [0.5, 1.25, 2.125, 3.0625, 4.03125]),  # x <- x / 2 + step / 2
    ],
)
def test_how_the_weights_follow(
    random_policy: MakePolicy, teacher: Teacher, moves: list[float]
) -> None:
    policy = random_policy(torch.float64)
    start = first(policy)
    found = walk(teacher, policy, 5)
    assert [value - start for value in found] == pytest.approx(moves, abs=1e-12)


@pytest.mark.parametrize("teacher", [Frozen(), Copied(1), EMA(0.5), Separate(TINY)])
def test_a_copy_shares_nothing_and_takes_no_gradient(
    random_policy: MakePolicy, teacher: Teacher
) -> None:
    policy = random_policy(torch.float32)
    weights = teacher.start(policy)
    own = {parameter.data_ptr() for parameter in weights.parameters()}
    assert not own & {parameter.data_ptr() for parameter in policy.parameters()}
    assert not any(parameter.requires_grad for parameter in weights.parameters())
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_a_separate_teacher_has_the_weights_of_its_folder(
    random_policy: MakePolicy, tiny: PreTrainedModel
) -> None:
    weights = Separate(TINY).start(random_policy(torch.float64))
    assert weights.dtype == torch.float64
    assert first(weights) == first(tiny)


def test_a_separate_teacher_that_is_nowhere(random_policy: MakePolicy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher\.path is .*nowhere"):
        Separate(str(tmp_path / "nowhere")).start(random_policy(torch.float32))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"teacher\.rate is 1\.5, it must lie in \[0, 1\]"):
        EMA(1.5)
    with pytest.raises(ValueError, match=r"teacher\.every_n_steps is 0, it must be at least 1"):
        Copied(0)
