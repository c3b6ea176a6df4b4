"""Every rollout of a step, with its per-token log-probs and credit, as one parquet file.

A step of a study has tens of millions of tokens: they go from tensors into Arrow's buffers whole,
never through Python objects one by one.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from rlrt.batch import Credit, Rollout, ScoredBatch
from rlrt.files import write_atomically
from rlrt.ranks import rank, world_size
from rlrt.records import FIELDS, TOKENS, columns, offsets, write_table

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        *FIELDS,
        ("advantage", pa.float64()),  # of the whole rollout, before any token weight
        ("student_logprobs", TOKENS),  # both null where the student view was not scored
        ("student_entropy", TOKENS),
        ("teacher_logprobs", TOKENS),  # null where the teacher view was not scored
        ("credit", TOKENS),
        ("distillation", TOKENS),  # weight of the divergence; null where the method distils nothing
    ]
)


def write_records(
    folder: Path,
    step: int,
    rollouts: Sequence[Rollout],
    prompts: Sequence[str],
    batch: ScoredBatch,
    credit: Credit,
) -> None:
    """Write ``rollouts/step=000012.parquet``, one row per rollout; an earlier one is replaced.

    Collective: rank 0 writes what all ranks have, in the order of groups and samples.
    """
    parts = _at_rank_0(_table(step, rollouts, prompts, batch, credit))
    if not parts:
        return
    table = pa.concat_tables(parts)
    if len(parts) > 1:
        table = table.sort_by([("group", "ascending"), ("sample", "ascending")])
    path = folder / f"step={step:06d}.parquet"
    write_atomically(path, lambda partial: write_table(table, partial))


def _at_rank_0(table: pa.Table) -> list[pa.Table]:
    """The tables of all ranks at rank 0, nothing at the others: only one has to hold them all."""
    if world_size() == 1:
        return [table]
    parts = [None] * world_size() if rank() == 0 else None
    dist.gather_object(table, parts)
    return parts or []


def _table(
    step: int,
    rollouts: Sequence[Rollout],
    prompts: Sequence[str],
    batch: ScoredBatch,
    credit: Credit,
) -> pa.Table:
    every_B = torch.ones_like(batch.student_scored_B)
    weights_BT = credit.distillation_BT
    advantages_B = credit.advantages_B

    def tokens(values_BT: Tensor, kept_B: Tensor = every_B) -> pa.ListArray:
        return _lists(values_BT, batch.response_mask_BT, kept_B)

    found = {
        "step": [step] * len(rollouts),
        **columns(rollouts, prompts),
        "advantage": [None] * len(rollouts) if advantages_B is None else advantages_B.tolist(),
        "student_logprobs": tokens(batch.student_logprobs_BT, batch.student_scored_B),
        "student_entropy": tokens(batch.student_entropy_BT, batch.student_scored_B),
        "teacher_logprobs": tokens(batch.teacher_logprobs_BT, batch.teacher_scored_B),
        "credit": tokens(credit.advantages_BT),
        "distillation": [None] * len(rollouts) if weights_BT is None else tokens(weights_BT),
    }
    return pa.table(found, schema=SCHEMA)


def _lists(values_BT: Tensor, mask_BT: Tensor, kept_B: Tensor) -> pa.ListArray:
    """The values of each row's tokens as a list; null in rows that are not kept."""
    kept_BT = mask_BT & kept_B[:, None]
    values = values_BT.float().numpy()[kept_BT.numpy()]  # several times faster than in torch
    return pa.ListArray.from_arrays(
        offsets(kept_BT.sum(1).tolist()), values, mask=pa.array(~kept_B.numpy())
    )
