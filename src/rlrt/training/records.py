"""Every rollout of a step, with its per-token log-probs and credit, as one parquet file.

A step of a study has tens of millions of tokens: they go from tensors into Arrow's buffers whole,
never through Python objects one by one.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from rlrt.batch import Credit, Rollout, ScoredBatch
from rlrt.distributed import barrier, get_rank, get_world_size
from rlrt.files import put_in_place, remove, write_atomically
from rlrt.functional.ids import token_mask
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

    With several ranks that is a folder, where each writes a part of its own and holds no other's
    rollouts; Parquet's readers take it as they take a file. It has its name when all parts are whole.
    Collective.
    """
    table = _table(step, rollouts, prompts, batch, credit)
    path = folder / f"step={step:06d}.parquet"
    if get_world_size() == 1:
        if path.is_dir():  # by several ranks, before this process took the run up
            remove(path)
        write_atomically(path, lambda partial: write_table(table, partial))
        return
    partial = folder / f".{path.name}.partial"
    if get_rank() == 0:
        remove(partial)  # of a process that was killed; its parts may be those of more ranks
    barrier()
    own = partial / f"{get_rank():04d}-of-{get_world_size():04d}.parquet"
    write_atomically(own, lambda partial: write_table(table, partial))
    barrier()
    if get_rank() == 0:
        put_in_place(partial, path)
    barrier()


def _table(
    step: int,
    rollouts: Sequence[Rollout],
    prompts: Sequence[str],
    batch: ScoredBatch,
    credit: Credit,
) -> pa.Table:
    every_B = torch.ones_like(batch.student_scored_B)
    mask_BT = token_mask([rollout.response.ids for rollout in rollouts])
    weights_BT = credit.distillation_BT
    advantages_B = credit.advantages_B

    def tokens(values_BT: Tensor, kept_B: Tensor = every_B) -> pa.ListArray:
        return _lists(values_BT, mask_BT, kept_B)

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
