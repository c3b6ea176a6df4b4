"""avg@k and pass@k against a loop, and against every subset of k samples."""

from itertools import combinations

import pytest
import torch

from rlrt.evaluation.metrics import AvgAtK, PassAtK

RIGHT = [  # three problems of six samples
    [True, False, False, True, True, False],
    [False] * 6,
    [False, True, False, False, False, False],
]


def test_avg_at_k_is_the_mean_over_all_samples() -> None:
    metric = AvgAtK()
    for right in RIGHT:
        metric.update(torch.tensor(right))
    assert float(metric.compute()) == pytest.approx(4 / 18, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(k: int) -> None:
    """Unbiased: the mean over all ways to draw k of the samples, averaged over problems."""
    metric = PassAtK(k)
    expected = 0.0
    for right in RIGHT:
        metric.update(torch.tensor(right))
        drawn = list(combinations(right, k))
        expected += sum(any(some) for some in drawn) / len(drawn) / 3
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_metrics_start_anew_after_a_reset() -> None:
    for metric in (AvgAtK(), PassAtK(1)):
        metric.update(torch.tensor([False, False]))
        metric.reset()
        metric.update(torch.tensor([True, True]))
        assert float(metric.compute()) == 1.0


@pytest.mark.parametrize("k", [0, -1])
def test_pass_at_less_than_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"evaluation.pass_at holds {k}"):
        PassAtK(k)


def test_more_than_was_sampled_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="k <= samples"):
        PassAtK(3).update(torch.tensor([True, False]))
