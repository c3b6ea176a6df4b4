"""Folders of evaluations with known answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.records import FIELDS, columns, write_table


def evaluation_folder(folder: Path, benchmarks: Mapping[str, Sequence[int]], samples: int) -> Path:
    """``records/<benchmark>.parquet``: of problem i so many of ``samples`` are right."""
    (folder / "records").mkdir(parents=True)
    for name, counts in benchmarks.items():
        rollouts = [
            Rollout(
                problem=Problem(f"{name}/{number}", "question", "1", name),
                group=number,
                sample=sample,
                prompt_ids=(1, 2),
                response=Response((3,), (-0.5,), truncated=False),
                text="1",
                verdict=Verdict.RIGHT if sample < count else Verdict.UNDECIDED,
                reward=1.0 if sample < count else 0.7,
            )
            for number, count in enumerate(counts)
            for sample in range(samples)
        ]
        table = pa.table(columns(rollouts, ["?"] * len(rollouts)), schema=pa.schema(FIELDS))
        write_table(table, folder / "records" / f"{name}.parquet")
    return folder
