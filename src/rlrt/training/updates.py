"""From a scored rollout step to the mini-batches of its optimiser updates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlrt.batch import Credit, Rollout, ScoredBatch
from rlrt.loss.aggregation import mean_one


@dataclass(frozen=True)
class Update:
    """One mini-batch: all that one optimiser update reads. Tensors stay on the CPU."""

    prompts: tuple[tuple[int, ...], ...]
    teacher_prompts: tuple[tuple[int, ...] | None, ...]  # None where nothing is distilled
    responses: tuple[tuple[int, ...], ...]
    counted_BT: Tensor  # bool, tokens of the denominator
    mask_BT: Tensor
    student_logprobs_BT: Tensor
    engine_logprobs_BT: Tensor
    advantages_BT: Tensor
    distillation_BT: Tensor


def split_updates(
    rollouts: Sequence[Rollout],
    teacher_prompts: Sequence[tuple[int, ...] | None],
    batch: ScoredBatch,
    credit: Credit,
    problems_per_update: int,
) -> list[Update]:
    """Mini-batches of whole groups, in the order of the groups."""
    updates = []
    groups = max(rollout.group for rollout in rollouts) + 1
    counted_BT = batch.response_mask_BT if credit.counted_BT is None else credit.counted_BT
    distillation_BT = credit.distillation_BT
    if distillation_BT is None:
        distillation_BT = torch.zeros_like(credit.advantages_BT)
    for first in range(0, groups, problems_per_update):
        chosen = range(first, first + problems_per_update)
        rows = [row for row, rollout in enumerate(rollouts) if rollout.group in chosen]
        weights_BT = distillation_BT[rows]
        updates.append(
            Update(
                prompts=tuple(rollouts[row].prompt_ids for row in rows),
                teacher_prompts=tuple(teacher_prompts[row] for row in rows),
                responses=tuple(rollouts[row].response.ids for row in rows),
                counted_BT=counted_BT[rows],
                mask_BT=batch.response_mask_BT[rows],
                student_logprobs_BT=batch.student_logprobs_BT[rows],
                engine_logprobs_BT=batch.engine_logprobs_BT[rows],
                advantages_BT=credit.advantages_BT[rows],
                distillation_BT=mean_one(weights_BT)
                if credit.relative_distillation
                else weights_BT,
            )
        )
    return updates


def without_rows(batch: ScoredBatch, credit: Credit, rows_B: Tensor) -> Credit:
    """The credit with some rollouts masked out: no loss, and no part in the denominator."""
    kept_B1 = ~rows_B[:, None]
    counted_BT = batch.response_mask_BT if credit.counted_BT is None else credit.counted_BT
    distillation_BT = credit.distillation_BT
    return Credit(
        advantages_BT=credit.advantages_BT * kept_B1,
        distillation_BT=None if distillation_BT is None else distillation_BT * kept_B1,
        relative_distillation=credit.relative_distillation,
        counted_BT=counted_BT & kept_B1,
        advantages_B=credit.advantages_B,
        metrics=credit.metrics,
    )
