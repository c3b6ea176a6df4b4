"""The contract of every credit assigner: whatever has a YAML in configs/credit is tested here."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tests.unit.credit.batches import (
    assert_same_credit,
    fields,
    padded,
    random_batch,
    rows_of,
    with_garbage,
    without_context,
    without_teacher,
)

from rlrt.config.compose import CONFIGS, build, compose
from rlrt.credit.assigner import CreditAssigner

NAMES = sorted(path.stem for path in Path(CONFIGS / "credit").glob("*.yaml"))
STEPS = (0, 7, 1000)


def distills(assigner: CreditAssigner) -> bool:
    return assigner.divergence is not None


@cache
def settings(name: str) -> DictConfig:
    """Composed once: it takes longer than any of these tests."""
    return compose([f"credit={name}"])


@pytest.fixture(params=NAMES)
def assigner(request: pytest.FixtureRequest) -> CreditAssigner:
    built: CreditAssigner = build(settings(request.param).credit)
    return built


@pytest.mark.parametrize("step", STEPS)
def test_shape_finite_detached_and_zero_outside_the_mask(
    assigner: CreditAssigner, step: int
) -> None:
    batch = random_batch(1)
    credit = assigner(batch, step)
    for values in fields(credit):
        assert values.shape == batch.response_mask_BT.shape
        assert torch.isfinite(values).all()
        assert not values.requires_grad
        assert (values[~batch.response_mask_BT] == 0).all()


@pytest.mark.parametrize("step", STEPS)
def test_metrics_are_values_to_average_under_the_same_names_at_every_call(
    assigner: CreditAssigner, step: int
) -> None:
    """Ranks whose rollouts differ must agree on the names, even one without any context or token."""
    batch = random_batch(1)
    metrics = assigner(batch, step).metrics
    assert all(values.ndim == 1 and not values.requires_grad for values in metrics.values())
    poorer = rows_of(without_context(batch, torch.ones(16, dtype=torch.bool)), torch.arange(4, 12))
    assert set(assigner(poorer, 1).metrics) == set(metrics)
    empty = replace(poorer, response_mask_BT=torch.zeros_like(poorer.response_mask_BT))
    assert set(assigner(empty, 0).metrics) == set(metrics)


@pytest.mark.parametrize("penalized", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_rollouts_that_it_does_not_credit_have_no_credit(
    assigner: CreditAssigner, step: int, penalized: bool
) -> None:
    """A length penalty can make unequal rewards equal, and equal ones unequal."""
    batch = random_batch(3)
    if penalized:
        penalty = torch.tensor([-1, 0, -1, 0, -0.5, 0, 0, 0] + [0] * 8, dtype=torch.float64)
        batch = replace(batch, penalty_B=penalty)
    credited = assigner.credited(batch, batch.has_context_B, step)
    assert credited.shape == batch.rewards_B.shape
    assert credited.dtype == torch.bool
    credit = assigner(batch, step)
    assert (credit.advantages_BT[~credited] == 0).all()
    assert credit.distillation_BT is None or (credit.distillation_BT[~credited] == 0).all()


@pytest.mark.parametrize("step", STEPS)
def test_the_student_is_read_only_where_it_says_so(assigner: CreditAssigner, step: int) -> None:
    """A run leaves it at 0 elsewhere; what it would have been plays no part."""
    batch = random_batch(3)
    reads = assigner.reads_student(batch, batch.has_context_B, step)
    assert reads.shape == batch.rewards_B.shape
    assert reads.dtype == torch.bool
    assert_same_credit(
        assigner(with_garbage(batch, "student_", ~reads), step), assigner(batch, step)
    )


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("view", ["teacher_", "divergence_"])
def test_the_teacher_plays_no_part_where_it_is_not_scored(
    assigner: CreditAssigner, step: int, view: str
) -> None:
    batch = random_batch(3)
    reads = assigner.reads_teacher(batch, step)
    scored = replace(batch, teacher_scored_B=batch.teacher_scored_B & reads)
    garbage = with_garbage(scored, view, ~scored.teacher_scored_B)
    assert_same_credit(assigner(garbage, step), assigner(batch, step))


@pytest.mark.parametrize("step", STEPS)
def test_the_tokens_that_count_cover_every_token_with_credit(
    assigner: CreditAssigner, step: int
) -> None:
    credit = assigner(random_batch(1), step)
    if credit.counted_BT is not None:
        assert credit.counted_BT.dtype == torch.bool
        for values in fields(credit):
            assert (values[~credit.counted_BT] == 0).all()


def test_equal_rewards_give_no_credit_unless_the_class_says_otherwise(
    assigner: CreditAssigner,
) -> None:
    if not assigner.zero_on_equal_rewards:
        pytest.skip("the class says otherwise")
    batch = random_batch(2)
    credit = assigner(batch, 0)
    assert (credit.advantages_BT[4:12] == 0).all()
    assert credit.distillation_BT is None or (credit.distillation_BT[4:12] == 0).all()


def test_a_group_of_mixed_rewards_gets_credit(assigner: CreditAssigner) -> None:
    credit = assigner(random_batch(2), 0)
    if not distills(assigner):
        assert (credit.advantages_BT[:4] != 0).any()
    else:
        assert credit.distillation_BT is not None
        assert (credit.distillation_BT > 0).any()


@pytest.mark.parametrize("step", STEPS)
def test_only_rollouts_that_it_distills_and_that_have_a_context_are_distilled(
    assigner: CreditAssigner, step: int
) -> None:
    batch = random_batch(3)
    distilled_B = assigner.distills(batch, step)
    assert distilled_B.shape == batch.rewards_B.shape
    assert distilled_B.dtype == torch.bool
    weights_BT = assigner(batch, step).distillation_BT
    if not distills(assigner):
        assert weights_BT is None
        assert not distilled_B.any()
    else:
        assert assigner.uses_context
        assert weights_BT is not None
        assert (weights_BT >= 0).all()
        assert (weights_BT[~(distilled_B & batch.has_context_B)] == 0).all()


@pytest.mark.parametrize("step", STEPS)
def test_what_it_asks_for_is_a_bool_per_rollout_and_enough(
    assigner: CreditAssigner, step: int
) -> None:
    batch = random_batch(3)
    reads = assigner.reads_teacher(batch, step)
    assert reads.shape == batch.rewards_B.shape
    assert reads.dtype == torch.bool
    assert assigner.uses_context or not reads.any()
    unread = without_teacher(batch, ~reads)
    unasked = without_context(unread, ~(reads | assigner.distills(batch, step)))
    assert_same_credit(assigner(unasked, step), assigner(batch, step))


def test_the_divergence_is_read_only_where_the_class_says_so(assigner: CreditAssigner) -> None:
    """A run leaves it at 0 for a method that does not declare ``reads_divergence``."""
    batch = random_batch(8)
    without = replace(batch, divergence_BT=torch.zeros_like(batch.divergence_BT))
    same = [
        torch.equal(found, expected)
        for found, expected in zip(
            fields(assigner(without, 0)), fields(assigner(batch, 0)), strict=True
        )
    ]
    assert all(same) != assigner.reads_divergence


@pytest.mark.parametrize("step", STEPS)
def test_without_any_context_credit_is_finite_and_nothing_is_distilled(
    assigner: CreditAssigner, step: int
) -> None:
    batch = random_batch(7)
    credit = assigner(without_context(batch, torch.ones(16, dtype=torch.bool)), step)
    assert all(torch.isfinite(values).all() for values in fields(credit))
    assert credit.distillation_BT is None or not credit.distillation_BT.any()
    assert all(torch.isfinite(values).all() for values in credit.metrics.values())


def test_permuting_rollouts_permutes_the_credit(assigner: CreditAssigner) -> None:
    batch = random_batch(4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(
        fields(assigner(rows_of(batch, order), 0)), fields(assigner(batch, 0)), strict=True
    ):
        torch.testing.assert_close(found, expected[order], rtol=1e-12, atol=1e-12)


def test_more_padding_changes_nothing(assigner: CreditAssigner) -> None:
    batch = random_batch(5)
    for found, expected in zip(
        fields(assigner(padded(batch, 3), 0)), fields(assigner(batch, 0)), strict=True
    ):
        torch.testing.assert_close(found[:, :9], expected, rtol=0, atol=0)
        assert (found[:, 9:] == 0).all()


def test_extreme_logprobs_do_not_overflow(assigner: CreditAssigner) -> None:
    batch = random_batch(6)
    mask_BT = batch.response_mask_BT.double()
    extreme = replace(
        batch,
        teacher_logprobs_BT=-1e4 * mask_BT,
        teacher_entropy_BT=1e4 * mask_BT,
        divergence_BT=1e4 * mask_BT,
    )
    for values in fields(assigner(extreme, 0)):
        assert torch.isfinite(values).all()
