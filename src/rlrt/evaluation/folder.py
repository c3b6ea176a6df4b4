"""The folder of an evaluation: its lock, its journal while it lasts, its records when it is complete.

The journal is JSON Lines, only ever appended to: every response is on the disk the moment that it has
ended, its arrays as base64 of their little-endian bytes. A process that dies leaves complete lines and at
most a part of one, which is dropped when the journal is read again.
"""

import fcntl
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Problem, Response, Rollout
from rlrt.errors import UserError
from rlrt.evaluation.questions import STUDENT, TEACHER, Key, Question
from rlrt.files import write_atomically
from rlrt.records import FIELDS, columns, prompt_texts, read_table, rollouts_of, write_table
from rlrt.reward.judge import JudgedResponse

LOCK = ".lock"
FORMAT = 2
ARRAYS = {"ids": "<i4", "engine_logprobs": "<f4", "sampled": "|b1"}  # None: sampled is all
RECORDS = {STUDENT: "records", TEACHER: "teacher_records"}
JUDGED_BY = b"judged_by"  # digest of the verifier's settings, beside the columns


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created where it does not exist.

    Afterwards a folder that was created and is still empty is removed again. UserError where another
    process holds the lock, or where nothing can be written.
    """
    # Not the filelock package: it leaves its lock file behind, so that no folder would be empty again.
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        _remove_empty(created)
        raise UserError(f"{folder} cannot be written to ({error.strerror})") from error
    with file:
        try:
            # the kernel lifts the lock when the process ends, however it ends
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # no name left: between open and flock its owner removed the file, which then locks nothing
            is_free = os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            is_free = False
        if not is_free:
            raise UserError(
                f"{folder} is being written by another process: wait until that has ended, or choose "
                "another out="
            )
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            _remove_empty(created)


def is_leftover(path: Path) -> bool:
    """Whether a killed process left the file: a lock, or a file that was only partly written."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".partial"))


def _remove_empty(folders: list[Path]) -> None:
    """Those that are empty; inner folders stand before the outer ones."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


class Journal:
    """Responses by key, in the file ``path``; of the evaluation with this ``fingerprint`` alone.

    Reading does not create the file. Append within a ``with``; the folder is the caller's alone.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._head = {"journal": FORMAT, "fingerprint": fingerprint}
        self._file: BinaryIO | None = None

    def read(self) -> dict[Key, Response]:
        """All its responses. UserError where it is damaged or another evaluation's."""
        if not self.path.exists():
            return {}
        responses = {}
        for number, line in enumerate(self._complete_lines()):
            try:
                entry = json.loads(line)
                if number:
                    key, response = _entry(entry)
                    responses[key] = response
            except (ValueError, LookupError, TypeError, AssertionError) as error:
                raise UserError(
                    f"{self.path} is damaged in line {number + 1} ({type(error).__name__}): cut it "
                    "off before that line, and what stood after it is asked again"
                ) from error
            if not number and isinstance(entry, dict) and entry.get("journal") != FORMAT:
                raise UserError(
                    f"{self.path} is a journal of another format ({entry.get('journal')}, it must be "
                    f"{FORMAT}): finish it with the version that began it, or choose another out="
                )
            if not number and entry != self._head:
                raise UserError(
                    f"{self.path} is the journal of another evaluation: choose another out="
                )
        return responses

    def append(self, key: Key, response: Response) -> None:
        """Write one response; the operating system has it when this returns."""
        arrays = {name: _text(getattr(response, name), kind) for name, kind in ARRAYS.items()}
        self._write(key._asdict() | arrays | {"truncated": response.truncated})

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        complete_bytes = sum(map(len, self._complete_lines()))
        self._file.truncate(complete_bytes)  # a process that died may have left a part of a line
        if not complete_bytes:
            self._write(self._head)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None, "append within a with"
        rest = memoryview(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        while rest:  # a disk that is nearly full takes a part first
            rest = rest[self._file.write(rest) :]

    def _complete_lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _entry(entry: dict[str, Any]) -> tuple[Key, Response]:
    key = Key(**{name: entry[name] for name in Key._fields})
    arrays: dict[str, Any] = {name: _array(entry[name], kind) for name, kind in ARRAYS.items()}
    return key, Response(**arrays, truncated=bool(entry["truncated"]))


def _text(values: NDArray[Any] | None, kind: str) -> str | None:
    return None if values is None else b64encode(values.astype(kind).tobytes()).decode()


def _array(text: Any, kind: str) -> NDArray[Any] | None:
    """ValueError or TypeError where the text holds no such array."""
    return None if text is None else np.frombuffer(b64decode(text, validate=True), kind)


@dataclass(frozen=True)
class SavedResponse:
    """A response that need not be sampled again; ``judged`` is None where it has no valid verdict.

    ``question`` is None where it comes from the journal, which does not say what was asked.
    """

    response: Response
    judged: JudgedResponse | None
    question: Question | None

    def verdict_for(self, problem: Problem) -> JudgedResponse | None:
        """Its verdict; None where there is none, or where the problem's answers have changed since."""
        before = None if self.question is None else self.question.problem.accepted_answers
        same = before == problem.accepted_answers
        return self.judged if same else None


class EvaluationFolder:
    """The journal and the records in ``path``.

    ``judged_by`` stands for the verifier's settings: verdicts under other settings are not taken over.
    """

    def __init__(self, path: Path, fingerprint: str, judged_by: str) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl", fingerprint)
        self._judged_by = judged_by.encode()

    @cached_property
    def _journaled(self) -> dict[Key, Response]:
        """The journal's responses when it was first read."""
        return self.journal.read()

    def saved_responses(self, view: str, benchmarks: Iterable[str]) -> dict[Key, SavedResponse]:
        """All responses to these benchmarks; UserError where a file of the folder is damaged."""
        saved = {
            key: SavedResponse(response, None, None)
            for key, response in self._journaled.items()
            if key.view == view
        }
        for benchmark in benchmarks:
            saved |= self._recorded(view, benchmark)
        return saved

    def _recorded(self, view: str, benchmark: str) -> dict[Key, SavedResponse]:
        path = self._records(view, benchmark)
        if not path.exists():
            return {}
        table = read_table(path)
        is_valid = _judged_by(table) == self._judged_by
        saved = {}
        for x in rollouts_of(table):
            judged = JudgedResponse(x.text, x.verdict, x.reward) if is_valid else None
            question = Question(view, benchmark, x.problem, x.group, x.sample, x.prompt_ids)
            saved[question.key] = SavedResponse(x.response, judged, question)
        return saved

    def write(
        self,
        view: str,
        rollouts: Mapping[str, Sequence[Rollout]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """The records of a view, a file for each benchmark; a file that would be equal stays untouched."""
        for benchmark, answered in rollouts.items():
            ordered = sorted(answered, key=lambda x: (x.group, x.problem.id, x.sample))
            schema = pa.schema(FIELDS, metadata={JUDGED_BY: self._judged_by})
            table = pa.table(columns(ordered, prompt_texts(ordered, tokenizer)), schema=schema)
            path = self._records(view, benchmark)
            before = read_table(path) if path.exists() else None
            # rewriting an equal file would change its time, by which a reader sees what is new; schemas
            # are not compared, since parquet names the items of a list differently
            if before is None or _judged_by(before) != self._judged_by or not before.equals(table):
                write_atomically(path, partial(write_table, table))

    def finish(self, written: Iterable[Key]) -> None:
        """Remove the journal, unless it holds responses that are not among the ``written`` records."""
        if set(map(_without_prompt, self._journaled)) <= set(map(_without_prompt, written)):
            self.journal.path.unlink(missing_ok=True)

    def _records(self, view: str, benchmark: str) -> Path:
        return self.path / RECORDS[view] / f"{benchmark}.parquet"


def _judged_by(records: pa.Table) -> bytes | None:
    return (records.schema.metadata or {}).get(JUDGED_BY)


def no_longer_asked(
    questions: Sequence[Question],
    all_questions: Sequence[Question],
    saved: Mapping[Key, SavedResponse],
) -> list[Question]:
    """Questions in the records that are not asked now, of more problems or samples; they stay there.

    Not those whose problem is worded differently in ``all_questions`` that could be asked.
    """
    asked = {_without_prompt(question.key) for question in questions}
    current = {(question.benchmark, question.problem.id): question for question in all_questions}
    kept = []
    for key, answer in saved.items():
        question = answer.question
        if question is None or _without_prompt(key) in asked:
            continue
        same = current.get((key.benchmark, key.problem), question)
        if same.prompt_ids == question.prompt_ids:
            kept.append(replace(question, problem=same.problem, group=same.group))
    return kept


def changed_prompts(
    questions: Sequence[Question],
    all_questions: Sequence[Question],
    saved: Mapping[Key, SavedResponse],
) -> dict[str, int]:
    """How many questions of each benchmark were asked in another wording before.

    UserError where none of the saved responses to a benchmark answers one of ``all_questions`` that
    could be asked of it: it is another benchmark of the same name.
    """
    before = {_without_prompt(key) for key in saved}
    known = {(q.key.benchmark, q.key.problem, q.key.prompt) for q in all_questions}
    counts: dict[str, int] = {}
    for benchmark in dict.fromkeys(question.benchmark for question in questions):
        keys = [key for key in saved if key.benchmark == benchmark]
        if keys and not any((benchmark, key.problem, key.prompt) in known for key in keys):
            raise UserError(
                f"the records hold another benchmark of the name {benchmark}, with other problems: "
                "choose another out="
            )
        new = [q.key for q in questions if q.benchmark == benchmark and q.key not in saved]
        counts[benchmark] = sum(_without_prompt(key) in before for key in new)
    return {benchmark: count for benchmark, count in counts.items() if count}


def _without_prompt(key: Key) -> Key:
    """The key of a question in any wording."""
    return key._replace(prompt="")
