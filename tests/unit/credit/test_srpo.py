import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlrt.batch import ScoredBatch
from rlrt.credit.srpo import SRPO
from rlrt.loss.objective import mean_one


def test_each_rollout_goes_one_way(group_of: Callable[..., ScoredBatch]) -> None:
    """Right, wrong with a context, wrong without one; the advantage is over all three."""
    batch = group_of(
        [1, 0, 0], contexts=[True, True, False], teacher_entropy=[0, math.log(2)], lengths=[2, 2, 1]
    )
    credit = SRPO(beta=1)(batch, 0)
    assert credit.advantages_BT[0].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert credit.advantages_BT[1].tolist() == [0, 0]
    assert credit.advantages_BT[2].tolist() == pytest.approx([-1 / 3, 0])
    assert credit.distillation_BT is not None
    assert credit.distillation_BT[1].tolist() == pytest.approx([1, 0.5])
    assert not credit.distillation_BT[[0, 2]].any()
    assert mean_one(credit.distillation_BT)[1].tolist() == pytest.approx([4 / 3, 2 / 3])
    assert credit.advantages_B is not None
    assert credit.advantages_B.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_without_beta_all_distilled_tokens_weigh_alike_and_no_teacher_is_scored(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 0, 0], teacher_entropy=[0.5, 3.0])
    plain = SRPO(beta=0)
    weights_BT = plain(batch, 0).distillation_BT
    assert weights_BT is not None
    assert weights_BT.tolist() == [[0, 0], [1, 1], [1, 1]]
    assert not plain.reads_teacher(batch, 0).any()
    assert plain.distills(batch, 0).tolist() == [False, True, True]
    assert SRPO(beta=0.5).reads_teacher(batch, 0).tolist() == [False, True, True]


def test_no_weight_vanishes_however_large_beta_is(group_of: Callable[..., ScoredBatch]) -> None:
    """All-zero weights would have no mean to scale by, and these tokens would teach nothing."""
    weights_BT = SRPO(beta=1e6)(group_of([1, 0], teacher_entropy=11.0), 0).distillation_BT
    assert weights_BT is not None
    assert mean_one(weights_BT.float()).tolist() == [[0, 0], [1, 1]]


def test_failures_without_any_success_are_distilled_if_they_have_a_context(
    group_of: Callable[..., ScoredBatch],
) -> None:
    credit = SRPO()(group_of([0, 0], contexts=[True, False]), 0)
    assert not credit.advantages_BT.any()
    assert credit.distillation_BT is not None
    assert torch.equal(credit.distillation_BT > 0, torch.tensor([[True, True], [False, False]]))


@pytest.mark.parametrize(
    "settings", [{"alpha": 2.0}, {"top_k": 0}, {"beta": -1.0}, {"importance_limit": 0.9}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=rf"credit\.{name} is {value}, it must"):
        SRPO(**settings)
