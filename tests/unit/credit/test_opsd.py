from collections.abc import Callable

import pytest
import torch

from rlrt.batch import ScoredBatch
from rlrt.credit.opsd import OPSD
from rlrt.loss.divergences import GeneralizedJSD


def test_it_distills_where_a_context_exists_whatever_the_reward(
    group_of: Callable[..., ScoredBatch],
) -> None:
    rewards = [[1, 0, 0], [0, 0, 0], [1, 1, 1]]
    credits = [OPSD()(group_of(each, contexts=[True, False, True]), 0) for each in rewards]
    for credit in credits:
        assert not credit.advantages_BT.any()
        assert credit.distillation_BT is not None
        assert credit.distillation_BT.tolist() == [[1, 1], [0, 0], [1, 1]]
        assert credit.counted_BT is not None
        assert torch.equal(credit.counted_BT, credit.distillation_BT > 0)


def test_the_divergence_is_the_full_one_and_has_no_importance_weight() -> None:
    opsd = OPSD(beta=0.25, element_clip=0.05)
    assert opsd.divergence == GeneralizedJSD(beta=0.25, element_clip=0.05)
    assert opsd.importance_limit is None


@pytest.mark.parametrize(("setting", "value"), [("beta", 1.5), ("element_clip", 0)])
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"credit\.{setting} is {value}, it must"):
        OPSD(**{setting: value})
