"""From a scored rollout step to the mini-batches of its optimiser updates."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlrt.batch import Credit, Rollout, ScoredBatch


@dataclass(frozen=True)
class Update:
    """One mini-batch: all that one optimiser update reads. Tensors stay on the CPU."""

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]
    mask_BT: Tensor
    student_logprobs_BT: Tensor
    engine_logprobs_BT: Tensor
    advantages_BT: Tensor


def split_updates(
    rollouts: Sequence[Rollout], batch: ScoredBatch, credit: Credit, problems_per_update: int
) -> list[Update]:
    """Mini-batches of whole groups, in the order of the groups."""
    assert credit.distillation_BT is None, "no loss reads distillation weights yet"
    updates = []
    groups = max(rollout.group for rollout in rollouts) + 1
    for first in range(0, groups, problems_per_update):
        chosen = range(first, first + problems_per_update)
        rows = [row for row, rollout in enumerate(rollouts) if rollout.group in chosen]
        updates.append(
            Update(
                prompts=tuple(rollouts[row].prompt_ids for row in rows),
                responses=tuple(rollouts[row].response.ids for row in rows),
                mask_BT=batch.response_mask_BT[rows],
                student_logprobs_BT=batch.student_logprobs_BT[rows],
                engine_logprobs_BT=batch.engine_logprobs_BT[rows],
                advantages_BT=credit.advantages_BT[rows],
            )
        )
    return updates
