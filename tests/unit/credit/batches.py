"""Random batches, and what becomes of them in other cases of a run."""

from dataclasses import replace

import torch
from torch import Tensor

from rlrt.batch import Credit, ScoredBatch


def random_batch(seed: int) -> ScoredBatch:
    """Four groups of four: mixed, all right, all wrong, mixed; lengths 0 to 9; some contexts."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([3, 0, 9, 5, 2, 2, 7, 1, 4, 4, 4, 4, 6, 8, 1, 3])
    mask = torch.arange(9)[None] < lengths[:, None]
    rewards = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.float64)

    def logprobs() -> Tensor:
        return -8 * torch.rand(16, 9, generator=draw, dtype=torch.float64) * mask

    found = torch.rand(16, generator=draw) < 0.7
    every = torch.ones(16, dtype=torch.bool)
    return ScoredBatch(
        group_B=torch.arange(4).repeat_interleave(4),
        rewards_B=rewards,
        penalty_B=torch.zeros_like(rewards),
        response_mask_BT=mask,
        engine_logprobs_BT=logprobs(),
        student_scored_B=every,
        student_logprobs_BT=logprobs(),
        student_entropy_BT=-logprobs(),
        has_context_B=found,
        teacher_scored_B=found,
        teacher_logprobs_BT=logprobs() * found[:, None],
        teacher_entropy_BT=-logprobs() * found[:, None],
        divergence_BT=-logprobs() * found[:, None],
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


def without_context(batch: ScoredBatch, rows_B: Tensor) -> ScoredBatch:
    """The batch as a run makes it where these rollouts have no context."""
    return without_teacher(replace(batch, has_context_B=batch.has_context_B & ~rows_B), rows_B)


def without_teacher(batch: ScoredBatch, rows_B: Tensor) -> ScoredBatch:
    """The batch as a run makes it where the teacher view of these rollouts is not scored."""
    return replace(
        batch,
        teacher_scored_B=batch.teacher_scored_B & ~rows_B,
        **{
            name: getattr(batch, name) * ~rows_B[:, None]
            for name in ("teacher_logprobs_BT", "teacher_entropy_BT", "divergence_BT")
        },
    )


def with_garbage(batch: ScoredBatch, view: str, rows_B: Tensor) -> ScoredBatch:
    """The batch with other values of a view (or the divergence) in some rows; far from 0 and wild."""
    draw = torch.Generator().manual_seed(9)
    garbage_BT = 50 * torch.randn(batch.response_mask_BT.shape, generator=draw, dtype=torch.float64)
    return replace(
        batch,
        **{
            name: torch.where(rows_B[:, None], garbage_BT, values)
            for name, values in vars(batch).items()
            if name.endswith("_BT") and name.startswith(view)
        },
    )


def assert_same_credit(found: Credit, expected: Credit) -> None:
    for values, wanted in zip(fields(found), fields(expected), strict=True):
        torch.testing.assert_close(values, wanted, rtol=0, atol=0)


def fields(credit: Credit) -> list[Tensor]:
    """Everything per token that a credit holds."""
    return [
        values.double()
        for values in (credit.advantages_BT, credit.distillation_BT, credit.counted_BT)
        if values is not None
    ]
