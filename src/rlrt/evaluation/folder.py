"""The folder of an evaluation: its journal while it lasts, its records when it is complete."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Response, Rollout
from rlrt.errors import UserError
from rlrt.evaluation.journal import Journal
from rlrt.evaluation.questions import STUDENT, TEACHER, Key, Question
from rlrt.files import write_atomically
from rlrt.records import FIELDS, columns, prompt_texts, read_table, rollouts_of, write_table
from rlrt.reward.judge import JudgedResponse

RECORDS = {STUDENT: "records", TEACHER: "teacher_records"}
JUDGED_BY = b"judged_by"  # digest of the verifier's settings, beside the columns


@dataclass(frozen=True)
class Known:
    """A response that need not be sampled again; ``judged`` is None where its verdict is due.

    ``question`` is None where it comes from the journal, which does not say what was asked.
    """

    response: Response
    judged: JudgedResponse | None
    question: Question | None

    def verdict_for(self, answer: str) -> JudgedResponse | None:
        """What was said of it, unless the answer has changed since."""
        same = self.question is not None and self.question.problem.answer == answer
        return self.judged if same else None


class EvaluationFolder:
    """What stands in ``path``. ``judged_by`` names the verifier's settings: verdicts reached under
    others are not taken over.
    """

    def __init__(self, path: Path, fingerprint: str, judged_by: str) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl", fingerprint)
        self._judged_by = judged_by.encode()

    @cached_property
    def _journaled(self) -> dict[Key, Response]:
        """What stood in the journal when it was first read."""
        return self.journal.read()

    def known(self, view: str, benchmarks: Iterable[str]) -> dict[Key, Known]:
        """All responses of these benchmarks; UserError where a file of the folder is damaged."""
        found = {
            key: Known(response, None, None)
            for key, response in self._journaled.items()
            if key.view == view
        }
        for benchmark in benchmarks:
            found |= self._recorded(view, benchmark)
        return found

    def _recorded(self, view: str, benchmark: str) -> dict[Key, Known]:
        path = self._records(view, benchmark)
        if not path.exists():
            return {}
        table = read_table(path)
        valid = (table.schema.metadata or {}).get(JUDGED_BY) == self._judged_by
        found = {}
        for rollout in rollouts_of(table):
            asked = (rollout.problem, rollout.group, rollout.sample, rollout.prompt_ids)
            judged = JudgedResponse(rollout.text, rollout.verdict, rollout.reward)
            question = Question(view, benchmark, *asked)
            found[question.key] = Known(rollout.response, judged if valid else None, question)
        return found

    def write(
        self,
        view: str,
        rollouts: Mapping[str, Sequence[Rollout]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """The records of a view, a file for each benchmark; one that says the same stays as it is."""
        for benchmark, answered in rollouts.items():
            asked = sorted(answered, key=lambda one: (one.group, one.problem.id, one.sample))
            schema = pa.schema(FIELDS, metadata={JUDGED_BY: self._judged_by})
            table = pa.table(columns(asked, prompt_texts(asked, tokenizer)), schema=schema)
            path = self._records(view, benchmark)
            if not path.exists() or not _same(read_table(path), table):
                write_atomically(path, partial(write_table, table))

    def finish(self, written: Iterable[Key]) -> None:
        """Take the journal away, unless it holds more than the records, in which these are."""
        if set(map(_anywise, self._journaled)) <= set(map(_anywise, written)):
            self.journal.path.unlink(missing_ok=True)

    def _records(self, view: str, benchmark: str) -> Path:
        return self.path / RECORDS[view] / f"{benchmark}.parquet"


def _same(before: pa.Table, after: pa.Table) -> bool:
    """Whether rows and judging rules are equal; parquet calls the items of a list otherwise."""
    rules = [(table.schema.metadata or {}).get(JUDGED_BY) for table in (before, after)]
    return rules[0] == rules[1] and bool(before.equals(after))


def beyond(
    questions: Sequence[Question], everything: Sequence[Question], known: Mapping[Key, Known]
) -> list[Question]:
    """What the records hold and nobody asks now, of more problems or samples; it stays there.

    Not where ``everything`` that could be asked has the problem in other words.
    """
    asked = {_anywise(question.key) for question in questions}
    now = {(one.benchmark, one.problem.id): one for one in everything}
    found = []
    for key, one in known.items():
        question = one.question
        if question is None or _anywise(key) in asked:
            continue
        same = now.get((key.benchmark, key.problem), question)
        if same.prompt_ids == question.prompt_ids:
            found.append(replace(question, problem=same.problem, group=same.group))
    return found


def changed(
    questions: Sequence[Question], everything: Sequence[Question], known: Mapping[Key, Known]
) -> dict[str, int]:
    """Of each benchmark, how many of its questions were asked in other words before.

    UserError where nothing that stands of a benchmark is among ``everything`` that could be asked of
    it: it is another one of the same name.
    """
    before = {_anywise(key) for key in known}
    problems = {(one.key.benchmark, one.key.problem, one.key.prompt) for one in everything}
    found: dict[str, int] = {}
    for benchmark in dict.fromkeys(question.benchmark for question in questions):
        stands = [key for key in known if key.benchmark == benchmark]
        if stands and not any((benchmark, key.problem, key.prompt) in problems for key in stands):
            raise UserError(
                f"the records hold another benchmark of the name {benchmark}, with other problems: "
                "choose another out="
            )
        new = [one.key for one in questions if one.benchmark == benchmark and one.key not in known]
        found[benchmark] = sum(_anywise(key) in before for key in new)
    return {benchmark: count for benchmark, count in found.items() if count}


def _anywise(key: Key) -> Key:
    """The key of the question, however it is put."""
    return key._replace(prompt="")
