"""The contract of every credit assigner: whatever has a YAML in configs/credit is tested here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlrt.assembly.configuration import CONFIGS, build, compose
from rlrt.batch import Credit, ScoredBatch
from rlrt.credit.assigner import CreditAssigner

NAMES = sorted(path.stem for path in Path(CONFIGS / "credit").glob("*.yaml"))
STEPS = (0, 7, 1000)


def random_batch(seed: int) -> ScoredBatch:
    """Four groups of four: mixed, all right, all wrong, mixed; lengths 0 to 9; some teachers."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([3, 0, 9, 5, 2, 2, 7, 1, 4, 4, 4, 4, 6, 8, 1, 3])
    mask = torch.arange(9)[None] < lengths[:, None]
    rewards = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.float64)

    def logprobs() -> Tensor:
        return -8 * torch.rand(16, 9, generator=draw, dtype=torch.float64) * mask

    scored = torch.rand(16, generator=draw) < 0.7
    return ScoredBatch(
        group_B=torch.arange(4).repeat_interleave(4),
        rewards_B=rewards,
        response_mask_BT=mask,
        engine_logprobs_BT=logprobs(),
        student_logprobs_BT=logprobs(),
        student_entropy_BT=-logprobs(),
        teacher_logprobs_BT=logprobs() * scored[:, None],
        teacher_scored_B=scored,
        responses=tuple(f"so \\(x={i}\\) and \\boxed{{{i}}}" for i in range(16)),
    )


def rows_of(batch: ScoredBatch, rows: Tensor) -> ScoredBatch:
    return ScoredBatch(
        **{
            name: tuple(value[row] for row in rows.tolist()) if name == "responses" else value[rows]
            for name, value in vars(batch).items()
        }
    )


def padded(batch: ScoredBatch, columns: int) -> ScoredBatch:
    return replace(
        batch,
        **{
            name: torch.nn.functional.pad(value, (0, columns))
            for name, value in vars(batch).items()
            if name.endswith("_BT")
        },
    )


def fields(credit: Credit) -> list[Tensor]:
    return [credit.advantages_BT] + (
        [] if credit.distillation_BT is None else [credit.distillation_BT]
    )


@pytest.fixture(params=NAMES)
def assigner(request: pytest.FixtureRequest) -> CreditAssigner:
    built: CreditAssigner = build(compose([f"credit={request.param}"]).credit)
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
    assert all(isinstance(value, float) for value in credit.metrics.values())


def test_equal_rewards_give_no_credit_unless_the_class_says_otherwise(
    assigner: CreditAssigner,
) -> None:
    if not assigner.zero_on_equal_rewards:
        pytest.skip("the class says otherwise")
    batch = random_batch(2)
    credit = assigner(batch, 0)
    for values in fields(credit):
        assert (values[4:12] == 0).all()
    assert (credit.advantages_BT[:4] != 0).any()


@pytest.mark.parametrize("step", STEPS)
def test_reads_teacher_is_a_bool_per_rollout_and_enough(
    assigner: CreditAssigner, step: int
) -> None:
    batch = random_batch(3)
    reads = assigner.reads_teacher(batch.rewards_B, batch.group_B, step)
    assert reads.shape == batch.rewards_B.shape
    assert reads.dtype == torch.bool
    assert assigner.uses_context or not reads.any()
    unread = replace(
        batch,
        teacher_scored_B=batch.teacher_scored_B & reads,
        teacher_logprobs_BT=batch.teacher_logprobs_BT * reads[:, None],
    )
    for found, expected in zip(
        fields(assigner(unread, step)), fields(assigner(batch, step)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


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
    extreme = replace(batch, teacher_logprobs_BT=-1e4 * batch.response_mask_BT.double())
    for values in fields(assigner(extreme, 0)):
        assert torch.isfinite(values).all()
