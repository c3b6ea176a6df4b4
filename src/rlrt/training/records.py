"""Every rollout of a step, with its per-token log-probs and credit, as one parquet file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rlrt.batch import Credit, Rollout, ScoredBatch
from rlrt.training.files import write_atomically

TOKENS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("problem_id", pa.string()),
        ("group", pa.int32()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("response", pa.string()),
        ("truncated", pa.bool_()),
        ("verdict", pa.string()),
        ("reward", pa.float64()),
        ("penalty", pa.float64()),
        ("advantage", pa.float64()),  # of the whole rollout, before any token weight
        ("response_ids", pa.list_(pa.int32())),
        ("engine_logprobs", TOKENS),
        ("student_logprobs", TOKENS),
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
    """Write ``rollouts/step=000012.parquet``, one row per rollout; an earlier one is replaced."""
    rows = [
        {"step": step, "prompt": prompt, **_outcome(rollout), **_tokens(batch, credit, row)}
        for row, (rollout, prompt) in enumerate(zip(rollouts, prompts, strict=True))
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    path = folder / f"step={step:06d}.parquet"
    write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def _outcome(rollout: Rollout) -> dict[str, Any]:
    return {
        "problem_id": rollout.problem.id,
        "group": rollout.group,
        "sample": rollout.sample,
        "answer": rollout.problem.answer,
        "response": rollout.text,
        "truncated": rollout.response.truncated,
        "verdict": rollout.verdict.value,
        "reward": rollout.reward,
        "penalty": rollout.penalty,
        "response_ids": list(rollout.response.ids),
        "engine_logprobs": list(rollout.response.engine_logprobs),
    }


def _tokens(batch: ScoredBatch, credit: Credit, row: int) -> dict[str, Any]:
    mask_T = batch.response_mask_BT[row]

    def values(values_BT: Tensor) -> list[float]:
        return values_BT[row][mask_T].tolist()

    return {
        "advantage": None if credit.advantages_B is None else float(credit.advantages_B[row]),
        "student_logprobs": values(batch.student_logprobs_BT),
        "student_entropy": values(batch.student_entropy_BT),
        "teacher_logprobs": values(batch.teacher_logprobs_BT)
        if batch.teacher_scored_B[row]
        else None,
        "credit": values(credit.advantages_BT),
        "distillation": None if credit.distillation_BT is None else values(credit.distillation_BT),
    }
