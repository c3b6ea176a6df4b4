from collections.abc import Callable

import torch

from rlrt.batch import ScoredBatch
from rlrt.credit.outcome_routed import OutcomeRouted
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlsd import RLSD


def test_it_is_rlrt_on_successes_and_rlsd_on_failures(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 0, 1, 0], teacher_minus_student=[0.05, -0.4])
    found = OutcomeRouted()(batch, 0).advantages_BT
    assert torch.equal(found[[0, 2]], RLRT()(batch, 0).advantages_BT[[0, 2]])
    assert torch.equal(found[[1, 3]], RLSD()(batch, 0).advantages_BT[[1, 3]])
    assert (found[1] > found[1, 1]).tolist() == [True, False]  # what the teacher likes: less blame


def test_it_asks_for_every_rollout_of_a_mixed_group_and_for_no_other(
    group_of: Callable[..., ScoredBatch],
) -> None:
    outcomes = group_of([1, 0, 1, 1, 0, 0], groups=[0, 0, 1, 1, 2, 2])
    assert OutcomeRouted().reads_teacher(outcomes, 0).tolist() == [True] * 2 + [False] * 4


def test_the_only_success_has_no_peer_and_keeps_its_advantage(
    group_of: Callable[..., ScoredBatch],
) -> None:
    batch = group_of([1, 0], contexts=[False, True], teacher_minus_student=0.1)
    credit = OutcomeRouted()(batch, 0)
    assert credit.advantages_B is not None
    assert (credit.advantages_BT[0] == credit.advantages_B[0]).all()
    assert (credit.advantages_BT[1] != credit.advantages_B[1]).all()
