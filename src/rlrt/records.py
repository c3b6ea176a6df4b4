"""Rollouts on the disk as parquet: the columns that every record has, those of a training step, and how
they are read back.

A step of a study has tens of millions of tokens: they go from tensors into Arrow's buffers whole,
never through Python objects one by one.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlrt.batch import (
    Credit,
    Problem,
    Response,
    Rollout,
    ScoredBatch,
    Verdict,
    as_array,
    token_mask,
)
from rlrt.distributed import barrier, get_rank, get_world_size
from rlrt.errors import UserError
from rlrt.files import put_in_place, remove, write_atomically

TOKENS = pa.list_(pa.float32())
FIELDS = [
    ("problem_id", pa.string()),
    ("source", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
    ("solution", pa.string()),  # null where the data has none
    ("feedback", pa.string()),
    ("group", pa.int32()),
    ("sample", pa.int32()),
    ("prompt", pa.string()),  # of the student view, with special tokens
    ("prompt_ids", pa.list_(pa.int32())),
    ("response", pa.string()),  # without special tokens
    ("truncated", pa.bool_()),
    ("verdict", pa.string()),
    ("reward", pa.float64()),
    ("penalty", pa.float64()),
    ("response_ids", pa.list_(pa.int32())),
    ("engine_logprobs", TOKENS),
    ("sampled", pa.list_(pa.bool_())),  # null where the policy sampled all tokens
    (
        "other_answers",
        pa.string(),
    ),  # a JSON list of what is right as well; null where there is none
    ("preceding", pa.string()),  # a JSON list of [role, content] before the question; null: none
]
NAMES = tuple(name for name, _ in FIELDS)
LISTS = ("other_answers", "preceding")  # of a problem, as JSON; records of before have neither
OPTIONAL = ("solution", "feedback", "sampled", *LISTS)  # may be null
PAIRED = ("response_ids", "engine_logprobs", "sampled")  # a value per response token
TEXTS = ("source", "question", "answer", "solution", "feedback")  # of a problem
REPEATED = ["problem_id", *TEXTS, "prompt", "verdict"]  # worth a dictionary; numbers are not


def columns(rollouts: Sequence[Rollout], prompts: Sequence[str]) -> dict[str, Any]:
    """What ``FIELDS`` name, a row per rollout; ``prompts`` are their student prompts as text."""
    problems = [rollout.problem for rollout in rollouts]
    responses = [rollout.response for rollout in rollouts]
    return {
        "problem_id": [problem.id for problem in problems],
        **{name: [getattr(problem, name) for problem in problems] for name in TEXTS},
        "group": [rollout.group for rollout in rollouts],
        "sample": [rollout.sample for rollout in rollouts],
        "prompt": list(prompts),
        "prompt_ids": lists([as_array(rollout.prompt_ids) for rollout in rollouts], np.int32),
        "response": [rollout.text for rollout in rollouts],
        "truncated": [response.truncated for response in responses],
        "verdict": [rollout.verdict.value for rollout in rollouts],
        "reward": [rollout.reward for rollout in rollouts],
        "penalty": [rollout.penalty for rollout in rollouts],
        "response_ids": lists([response.ids for response in responses], np.int32),
        "engine_logprobs": lists([response.engine_logprobs for response in responses], np.float32),
        "sampled": lists([response.sampled for response in responses], np.bool_),
        **{name: [_json(getattr(problem, name)) for problem in problems] for name in LISTS},
    }


def _json(values: Sequence[Any]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None


def prompt_texts(rollouts: Sequence[Rollout], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The student prompts with special tokens, each decoded once."""
    texts = {ids: tokenizer.decode(ids) for ids in {rollout.prompt_ids for rollout in rollouts}}
    return [texts[rollout.prompt_ids] for rollout in rollouts]


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of records at ``path``."""
    pq.write_table(table, path, compression="zstd", use_dictionary=REPEATED)


def offsets(lengths: Sequence[int]) -> pa.Array:
    """Where each list begins, and where the last one ends."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())


def lists(rows: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> pa.ListArray:
    """A list per row, of the values of its array; null where there is none."""
    arrays = [row for row in rows if row is not None]
    flat = np.concatenate([*arrays, np.empty(0, dtype)], dtype=dtype)
    ends = offsets([0 if row is None else len(row) for row in rows])
    none = pa.array([row is None for row in rows]) if len(arrays) < len(rows) else None
    return pa.ListArray.from_arrays(ends, pa.array(flat), mask=none)


def record_files(folder: Path) -> list[Path]:
    """The records of a run folder (one for each rollout step, in order) or of an evaluation's folder.

    Those that several ranks wrote are a folder. UserError where there are none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no run folder: no such folder exists")
    files = sorted((folder / "rollouts").glob("step=*.parquet"))
    files = files or sorted((folder / "records").glob("*.parquet"))
    if not files:
        raise UserError(
            f"{folder} holds no records: neither rollouts/step=*.parquet of a run "
            "(record_rollouts=true) nor records/*.parquet of an evaluation"
        )
    return files


def step_files(folder: Path, wanted: Iterable[int] = ()) -> dict[int, Path]:
    """The records of a run folder by rollout step, in order.

    UserError where there are none, where they are an evaluation's, or where a ``wanted`` step lacks.
    """
    files = record_files(folder)
    if files[0].parent.name != "rollouts":
        raise UserError(f"{folder} holds the records of an evaluation: a run folder is needed")
    path_of = {int(path.stem.removeprefix("step=")): path for path in files}
    for step in wanted:
        if step not in path_of:
            raise UserError(
                f"{folder} holds no records of rollout step {step}: it holds those of "
                f"{len(path_of)} steps from {min(path_of)} to {max(path_of)}"
            )
    return path_of


def read_table(path: Path, also: Sequence[str] = (), only: Sequence[str] = NAMES) -> pa.Table:
    """The records at ``path``: the columns that every record has, or ``only`` some, and those of ``also``.

    The parts that several ranks wrote, a folder, are put together in the order of groups and samples.
    What ``FIELDS`` names has its type there, and its values are such as a run writes. UserError where
    they are not, where it is no parquet file, or lacks a column, as files of an earlier format do.
    """
    wanted = [*only, *also]
    if not path.is_dir():
        return _read(path, wanted)
    keys = ["group", "sample"]
    tables = [_read(file, [*dict.fromkeys([*wanted, *keys])]) for file in sorted(path.iterdir())]
    if not tables:
        raise UserError(f"{path} holds no records: it is an empty folder")
    return pa.concat_tables(tables).sort_by([(key, "ascending") for key in keys]).select(wanted)


def _read(path: Path, wanted: Sequence[str]) -> pa.Table:
    """The columns of one file, checked."""
    try:
        names = pq.read_schema(path).names
        absent = [name for name in wanted if name in LISTS and name not in names]
        if missing := [name for name in wanted if name not in names and name not in absent]:
            raise UserError(
                f"{path} is a record of another format: it lacks {', '.join(missing)}; "
                "records of this version are needed, from a new run"
            )
        table = pq.read_table(path, columns=[name for name in wanted if name not in absent])
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} is no readable parquet file ({why})") from error
    for name in absent:
        table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    table = _typed(table.select(wanted), path)
    if fault := _fault(table):
        raise UserError(f"{path} is no record of rollouts: {fault}")
    return table


def _typed(table: pa.Table, path: Path) -> pa.Table:
    """The table with the types of ``FIELDS``; UserError naming a column that cannot have its type."""
    for number, field in enumerate(table.schema):
        wanted = dict(FIELDS).get(field.name, field.type)
        try:
            table = table.set_column(number, field.name, table[field.name].cast(wanted))
        except pa.ArrowException as error:
            raise UserError(
                f"{path} is no record of rollouts: {field.name} is {field.type}, it must be {wanted}"
            ) from error
    return table


def _fault(table: pa.Table) -> str | None:
    """What no run writes, in a few words; of whole columns, so that nothing is read one by one."""
    names = [name for name in NAMES if name in table.column_names]
    for name in names:
        column = table[name]
        nulls = 0 if name in OPTIONAL else column.null_count
        if pa.types.is_list(column.type):
            nulls += sum(chunk.flatten().null_count for chunk in column.chunks)
        if nulls:
            return f"{name} lacks {nulls} values"
    if "verdict" in names:
        others = set(pc.unique(table["verdict"]).to_pylist()) - set(Verdict)
        if others:
            return f"a verdict is {min(others)!r}, it must be one of {', '.join(Verdict)}"
    paired = [name for name in PAIRED if name in names]
    for other in paired[1:]:
        lengths = (pc.list_value_length(table[name]) for name in (paired[0], other))
        if pc.any(pc.not_equal(*lengths)).as_py():  # a null is equal to anything
            return f"{paired[0]} and {other} have unequal lengths"
    return None


def rollouts_of(table: pa.Table) -> list[Rollout]:
    """The rollouts of a table, in its order; equal problems and prompts are one object."""
    arrays = [list(_arrays(table[name])) for name in ("prompt_ids", *PAIRED)]
    plain = table.select([name for name in NAMES if name not in ("prompt_ids", *PAIRED)])
    problems: dict[Problem, Problem] = {}
    prompts: dict[bytes, tuple[int, ...]] = {}
    rollouts = []
    for row, prompt, ids, logprobs, sampled in zip(plain.to_pylist(), *arrays, strict=True):
        assert prompt is not None, row
        texts = {name: row[name] for name in TEXTS}
        others, preceding = (json.loads(row[name] or "[]") for name in LISTS)
        problem = Problem(
            id=row["problem_id"],
            **texts,
            other_answers=tuple(others),
            preceding=tuple(map(tuple, preceding)),
        )
        key = prompt.tobytes()
        if key not in prompts:
            prompts[key] = tuple(prompt.tolist())
        rollouts.append(
            Rollout(
                problem=problems.setdefault(problem, problem),
                group=row["group"],
                sample=row["sample"],
                prompt_ids=prompts[key],
                response=Response(ids, logprobs, row["truncated"], sampled),
                text=row["response"],
                verdict=Verdict(row["verdict"]),
                reward=row["reward"],
                penalty=row["penalty"],
            )
        )
    return rollouts


def _arrays(column: pa.ChunkedArray) -> Iterator[NDArray[Any] | None]:
    """The values of each row's list, a part of one array for all; None for null."""
    for chunk in column.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False)
        ends = chunk.offsets.to_numpy()
        for row, valid in enumerate(chunk.is_valid().to_pylist()):
            yield values[ends[row] : ends[row + 1]] if valid else None


SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        *FIELDS,
        ("advantage", pa.float64()),  # of the whole rollout, before any token weight
        ("student_logprobs", TOKENS),  # both null where the student view was not scored
        ("student_entropy", TOKENS),
        ("teacher_logprobs", TOKENS),  # null where the teacher view was not scored
        ("credit", TOKENS),
        # weight of the divergence; null where the method distills nothing
        ("distillation", TOKENS),
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
    part = partial / f"{get_rank():04d}-of-{get_world_size():04d}.parquet"
    write_atomically(part, lambda partial: write_table(table, partial))
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
        """The values of each row's tokens as a list; null in rows that are not kept."""
        kept_BT = mask_BT & kept_B[:, None]
        values = values_BT.float().numpy()[kept_BT.numpy()]  # several times faster than in torch
        return pa.ListArray.from_arrays(
            offsets(kept_BT.sum(1).tolist()), values, mask=pa.array(~kept_B.numpy())
        )

    table = {
        "step": [step] * len(rollouts),
        **columns(rollouts, prompts),
        "advantage": [None] * len(rollouts) if advantages_B is None else advantages_B.tolist(),
        "student_logprobs": tokens(batch.student_logprobs_BT, batch.student_scored_B),
        "student_entropy": tokens(batch.student_entropy_BT, batch.student_scored_B),
        "teacher_logprobs": tokens(batch.teacher_logprobs_BT, batch.teacher_scored_B),
        "credit": tokens(credit.advantages_BT),
        "distillation": [None] * len(rollouts) if weights_BT is None else tokens(weights_BT),
    }
    return pa.table(table, schema=SCHEMA)
