"""Small batches to work out by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rlrt.batch import ScoredBatch


def _group_of(
    rewards: Sequence[float],
    *,
    groups: Sequence[int] | None = None,
    penalties: Sequence[float] | None = None,
    responses: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    contexts: Sequence[bool] | None = None,
    teacher_minus_student: Any = 0.0,
    student_entropy: Any = 1.0,
    teacher_entropy: Any = 0.0,
    divergence: Any = 0.0,
) -> ScoredBatch:
    count = len(rewards)
    longest = torch.tensor(lengths or [2] * count)
    mask = torch.arange(int(longest.max()))[None] < longest[:, None]
    context = torch.tensor([True] * count if contexts is None else contexts)

    def tokens(values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64).expand(mask.shape) * mask

    student = tokens(-1.0)
    return ScoredBatch(
        group_B=torch.tensor(groups or [0] * count),
        rewards_B=torch.tensor(rewards, dtype=torch.float64),
        penalty_B=torch.tensor(penalties or [0.0] * count, dtype=torch.float64),
        responses=tuple(responses or [""] * count),
        response_mask_BT=mask,
        engine_logprobs_BT=student,
        student_scored_B=torch.ones_like(context),
        student_logprobs_BT=student,
        student_entropy_BT=tokens(student_entropy),
        has_context_B=context,
        teacher_scored_B=context,
        teacher_logprobs_BT=(student + tokens(teacher_minus_student)) * context[:, None],
        teacher_entropy_BT=tokens(teacher_entropy) * context[:, None],
        divergence_BT=tokens(divergence) * context[:, None],
    )


@pytest.fixture(scope="session")
def group_of() -> Callable[..., ScoredBatch]:
    """A batch in float64, two tokens per response, one group and contexts everywhere unless said.

    Values per token are numbers, rows or matrices; the student's log-probs are -1.
    """
    return _group_of
