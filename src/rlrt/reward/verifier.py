"""The verifier: which responses are right, decided outside of the trainer's process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt

from rlrt.batch import SUCCESS_REWARD, Verdict
from rlrt.reward.equivalence import is_exact_match
from rlrt.reward.extraction import Extract, extract_answer
from rlrt.reward.workers import Pool, Reply, Task
from rlrt.validation import validated

_GIB = 2**30
_LEAST_GIB = 0.5  # sympy and its parser tables alone map about a third of a gibibyte
UNDECIDED_RANGE = (
    f"allowed: from 0 to below {SUCCESS_REWARD}: an undecided response is no correct one"
)
FLIPS_RANGE = "allowed: from 0 to below 0.5, where a reward says nothing"


@dataclass(frozen=True)
class Grade:
    """What the verifier decided about one response."""

    verdict: Verdict
    reward: float  # 1 right, 0 wrong, ``undecided_reward`` undecided
    seconds: float  # in a worker; 0 where none was needed
    failed: bool = False  # undecided since the comparison raised an error


class Verifier:
    r"""Extracts each response's answer and compares it with the gold answer.

    Decided here: no answer (wrong), the same text (right), an answer longer than
    ``max_answer_characters`` (undecided). All else is decided by worker processes, each answer within
    ``timeout_s`` and each worker within ``memory_gib`` of address space; whatever hits a limit or
    brings its process down is undecided, and nothing else is touched; so is a comparison that raises an
    error (``Grade.failed``). Equal tasks within a call of ``grade``, or while a ``grading`` lasts, are
    decided once. Text without a marked answer
    (``boxed_or_text``) is searched in its last ``max_answer_characters``.

    ``extract``: ``boxed`` (the study), ``answer_line`` (DAPO) or ``boxed_or_text``.
    ``tail_characters``: look for the answer in so many last characters only; the study's code base
    takes 100. ``flip_probability`` is for studies of robustness: training sees the reward of so many
    decided responses flipped, while verdicts and evaluations stay true. Processes start at the first
    need; close the verifier, or use it in a ``with``.
    """

    @validated("reward")
    def __init__(
        self,
        workers: PositiveInt = 4,
        timeout_s: PositiveFloat = 5.0,
        memory_gib: Annotated[float, Field(ge=_LEAST_GIB)] = 1.0,
        max_answer_characters: PositiveInt = 10_000,
        extract: Extract = "boxed",
        tail_characters: PositiveInt | None = None,
        undecided_reward: Annotated[
            float, Field(ge=0, lt=SUCCESS_REWARD, description=UNDECIDED_RANGE)
        ] = 0.0,
        flip_probability: Annotated[float, Field(ge=0, lt=0.5, description=FLIPS_RANGE)] = 0.0,
    ) -> None:
        self.flip_probability = flip_probability
        self.max_answer_characters = max_answer_characters
        self.extract: Extract = extract
        self.tail_characters = tail_characters
        self.undecided_reward = undecided_reward
        self._pool = Pool(workers, timeout_s, int(memory_gib * _GIB))

    def grade(self, responses: Sequence[str], golds: Sequence[str]) -> list[Grade]:
        """One grade per response, in order. RunStoppedError if no worker can be started."""
        with self.grading() as grading:
            pending = [
                grading.ask(response, [gold])
                for response, gold in zip(responses, golds, strict=True)
            ]
            return [wait_for_grade() for wait_for_grade in pending]

    @contextmanager
    def grading(self) -> Iterator["Grading"]:
        """Answers are handed in one by one and decided meanwhile; equal ones are decided once."""
        with self._pool.accepting() as submit:
            yield Grading(self, submit)

    def close(self) -> None:
        """End the worker processes; a later ``grade`` starts new ones."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Grading:
    """Answers that are decided while more of them come in."""

    def __init__(self, verifier: Verifier, submit: Callable[[Task], Future[Reply]]) -> None:
        self._verifier = verifier
        self._submit = submit
        self._replies: dict[Task, Future[Reply]] = {}

    def ask(self, response: str, golds: Sequence[str]) -> Callable[[], Grade]:
        """A function that waits for the grade of ``response``; this call itself returns at once.

        It is right where it is equal to one of ``golds``, else undecided where that could not be said
        of one. Waiting raises RunStoppedError if no worker can be started.
        """
        limit = self._verifier.max_answer_characters
        answer = extract_answer(response, self._verifier.extract, self._verifier.tail_characters)
        if answer is None:
            return partial(self._grade, Verdict.WRONG)
        if any(is_exact_match(answer.text, gold) for gold in golds):
            return partial(self._grade, Verdict.RIGHT)
        if len(answer.text) > limit and not answer.free_text:
            return partial(self._grade, Verdict.UNDECIDED)
        tasks = [Task(answer.text[-limit:], gold, answer.free_text) for gold in golds]
        for task in tasks:
            # the rollouts of a group often give the same answer: it is compared once
            if task not in self._replies:
                self._replies[task] = self._submit(task)
        return partial(self._wait_for_grade, [self._replies[task] for task in tasks])

    def _wait_for_grade(self, replies: Sequence[Future[Reply]]) -> Grade:
        outcomes, times = zip(*(reply.result() for reply in replies), strict=True)
        seconds = sum(times)
        for outcome in ("right", "undecided", "failed"):
            if outcome in outcomes:
                failed = outcome == "failed"
                verdict = Verdict.UNDECIDED if failed else Verdict(outcome)
                return self._grade(verdict, seconds, failed)
        return self._grade(Verdict.WRONG, seconds)

    def _grade(self, verdict: Verdict, seconds: float = 0.0, failed: bool = False) -> Grade:
        undecided = self._verifier.undecided_reward
        rewards = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0, Verdict.UNDECIDED: undecided}
        return Grade(verdict, rewards[verdict], seconds, failed)
