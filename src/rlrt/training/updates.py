"""From a scored rollout step to the mini-batches of its optimizer updates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlrt import distributed
from rlrt.batch import Credit, Rollout, ScoredBatch, token_mask
from rlrt.loss.objective import MicroBatch, mean_one
from rlrt.model.packing import joined


@dataclass(frozen=True)
class Update:
    """One mini-batch: all that one optimizer update reads. Tensors stay on the CPU."""

    rows: tuple[int, ...]  # the rollouts' places in the rollout step
    prompts: tuple[tuple[int, ...], ...]
    teacher_prompts: tuple[tuple[int, ...] | None, ...]  # None where nothing is distilled
    responses: tuple[NDArray[np.int32], ...]
    counted_BT: Tensor  # bool, tokens of the denominator
    mask_BT: Tensor  # bool, tokens of the responses
    sampled_BT: Tensor  # bool, those that the policy sampled
    student_scored_B: Tensor  # bool; elsewhere the update's own log-probs are the student's
    student_logprobs_BT: Tensor
    engine_logprobs_BT: Tensor
    advantages_BT: Tensor
    distillation_BT: Tensor


@dataclass(frozen=True)
class Reading:
    """What an update was the first to compute of the student view, at all sampled tokens of responses."""

    rows: list[int]  # the rollouts' places in the rollout step
    logprobs_N: Tensor
    entropy_N: Tensor


def micro_batch(
    update: Update, weights_BT: Tensor, rows: list[int], device: torch.device
) -> MicroBatch:
    """These rows of an update with their weights of the aggregation, as flat tokens on a device."""
    mask_BT = update.mask_BT[rows]

    def flat(values_BT: Tensor) -> Tensor:
        return values_BT[rows][mask_BT].to(device)

    lengths_B = mask_BT.sum(1)
    return MicroBatch(
        rows=rows,
        ids_N=joined([update.responses[row] for row in rows]).to(device),
        response_N=torch.arange(len(rows)).repeat_interleave(lengths_B).to(device),
        weights_N=flat(weights_BT),
        sampled_N=flat(update.sampled_BT),
        student_scored_N=flat(update.student_scored_B[:, None].expand_as(update.mask_BT)),
        student_logprobs_N=flat(update.student_logprobs_BT),
        engine_logprobs_N=flat(update.engine_logprobs_BT),
        advantages_N=flat(update.advantages_BT),
        distillation_N=flat(update.distillation_BT),
    )


def first_reading(
    update: Update, batch: MicroBatch, logprobs_n: Tensor, entropy_n: Tensor
) -> Reading:
    """What was computed at the tokens of ``batch.credited_N`` and no pass had computed before."""
    credited_N = batch.credited_N
    new_n = ~batch.student_scored_N[credited_N]
    places = batch.response_N[credited_N][new_n].unique().tolist()
    rows = [update.rows[batch.rows[place]] for place in places]
    return Reading(rows, logprobs_n.detach()[new_n].cpu(), entropy_n[new_n].cpu())


def split_updates(
    rollouts: Sequence[Rollout],
    teacher_prompts: Sequence[tuple[int, ...] | None],
    batch: ScoredBatch,
    credit: Credit,
    problems_per_update: int,
) -> list[Update]:
    """Mini-batches of whole groups, in the order of the groups, as many on every rank; collective.

    ``rollouts`` come group after group. A rank may have none in an update. Tensors are views of the
    step's.
    """
    counted_BT = batch.response_mask_BT if credit.counted_BT is None else credit.counted_BT
    distillation_BT = credit.distillation_BT
    if distillation_BT is None:  # zeros that take no memory
        distillation_BT = credit.advantages_BT.new_zeros(()).expand_as(credit.advantages_BT)
    mask_BT = token_mask([rollout.response.ids for rollout in rollouts])
    return [
        Update(
            rows=tuple(range(len(rollouts))[rows]),
            prompts=tuple(rollout.prompt_ids for rollout in rollouts[rows]),
            teacher_prompts=tuple(teacher_prompts[rows]),
            responses=tuple(rollout.response.ids for rollout in rollouts[rows]),
            counted_BT=counted_BT[rows],
            mask_BT=mask_BT[rows],
            sampled_BT=batch.response_mask_BT[rows],
            student_scored_B=batch.student_scored_B[rows],
            student_logprobs_BT=batch.student_logprobs_BT[rows],
            engine_logprobs_BT=batch.engine_logprobs_BT[rows],
            advantages_BT=credit.advantages_BT[rows],
            distillation_BT=distillation_BT[rows],
        )
        for rows in _rows_of_updates(batch.group_B, problems_per_update)
    ]


def scaled_within_updates(batch: ScoredBatch, credit: Credit, problems_per_update: int) -> Credit:
    """The credit as the updates have it: relative distillation weights with a mean of 1 in each."""
    if credit.distillation_BT is None or not credit.relative_distillation:
        return credit
    scaled_BT = credit.distillation_BT.clone()
    for rows in _rows_of_updates(batch.group_B, problems_per_update):
        scaled_BT[rows] = mean_one(scaled_BT[rows])
    return replace(credit, distillation_BT=scaled_BT, relative_distillation=False)


def without_rows(batch: ScoredBatch, credit: Credit, rows_B: Tensor) -> Credit:
    """The credit with some rollouts masked out: no loss, and no part in the denominator."""
    kept_B1 = ~rows_B[:, None]
    counted_BT = batch.response_mask_BT if credit.counted_BT is None else credit.counted_BT
    distillation_BT = credit.distillation_BT
    return replace(
        credit,
        advantages_BT=credit.advantages_BT * kept_B1,
        distillation_BT=None if distillation_BT is None else distillation_BT * kept_B1,
        counted_BT=counted_BT & kept_B1,
    )


def _rows_of_updates(group_B: Tensor, problems_per_update: int) -> list[slice]:
    """Where each update's rollouts stand, as many updates on every rank; collective."""
    update_B = group_B // problems_per_update
    assert bool((update_B.diff() >= 0).all()), "rollouts come group after group"
    # a rank that has lost all groups of an update to others makes it all the same, with no rows
    count = distributed.largest(int(update_B.max()) + 1 if len(update_B) else 0)
    ends = torch.searchsorted(update_B, torch.arange(count + 1)).tolist()
    return [slice(*pair) for pair in pairwise(ends)]
