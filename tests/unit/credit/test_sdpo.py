from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlrt.batch import ScoredBatch
from rlrt.credit.sdpo import SDPO
from rlrt.loss.divergences import AlphaDivergence, SampledToken


def test_every_rollout_with_a_context_is_distilled_and_nothing_else_counts(
    group_of: Callable[..., ScoredBatch],
) -> None:
    """Rewards play no part: the right rollout is distilled, and one without a context left out."""
    batch = group_of([1, 0, 0], contexts=[True, True, False], lengths=[1, 2, 2])
    credit = SDPO()(batch, 0)
    expected = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=torch.float64)
    assert not credit.advantages_BT.any()
    assert credit.distillation_BT is not None
    assert credit.counted_BT is not None
    assert torch.equal(credit.distillation_BT, expected)
    assert torch.equal(credit.counted_BT, expected.bool())
    assert not credit.relative_distillation
    assert credit.metrics["distilled_tokens"].double().mean() == 3 / 5


def test_it_asks_for_contexts_but_for_no_teacher_log_probs(
    group_of: Callable[..., ScoredBatch],
) -> None:
    outcomes = group_of([1, 0])
    assert SDPO().distills(outcomes, 0).all()
    assert not SDPO().reads_teacher(outcomes, 0).any()


def test_settings_choose_the_divergence() -> None:
    assert SDPO(alpha=0.25, top_k=7).divergence == AlphaDivergence(alpha=0.25, top_k=7)
    assert SDPO(alpha=1, top_k=None, sampled_token=True).divergence == SampledToken()
    assert SDPO().importance_limit == 2.0
    assert SDPO(importance_limit=None).importance_limit is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"top_k": 0}, "top_k"),
        ({"importance_limit": 0.5}, "importance_limit"),
        ({"sampled_token": True, "top_k": None}, "alpha"),
        ({"sampled_token": True, "alpha": 1}, "top_k"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"credit\.{name} is .*, it must"):
        SDPO(**settings)
