"""The questions of an evaluation: one for every response that it wants, in either view."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

from rlrt.batch import Problem, Response, Rollout
from rlrt.context.context import Context
from rlrt.data.prompts import Prompts
from rlrt.errors import UserError
from rlrt.reward.judge import JudgedResponse
from rlrt.seeds import derive_seed

STUDENT, TEACHER = "student", "teacher"


class Key(NamedTuple):
    """Identifies a question; the same key with the same settings has the same response."""

    view: str
    benchmark: str
    problem: str  # id
    sample: int
    prompt: str  # digest of its ids: another question under the same id is another key


@dataclass(frozen=True)
class Question:
    """One response that is wanted. ``group`` is the problem's position in its benchmark."""

    view: str
    benchmark: str
    problem: Problem
    group: int
    sample: int
    prompt_ids: tuple[int, ...]

    @cached_property
    def key(self) -> Key:
        digest = blake2b(repr(self.prompt_ids).encode(), digest_size=8).hexdigest()
        return Key(self.view, self.benchmark, self.problem.id, self.sample, digest)

    @property
    def slot(self) -> tuple[str, str, int]:
        """Benchmark, problem and sample: what the question is about, however it is worded."""
        return self.benchmark, self.problem.id, self.sample

    def seed(self, seed: int) -> int:
        """The seed of its response: it depends on this question alone, not on others asked beside it."""
        purpose = f"evaluation/{self.view}/{self.benchmark}/{self.problem.id}"
        return derive_seed(seed, purpose, self.sample)

    def rollout(self, response: Response, judged: JudgedResponse) -> Rollout:
        """The record of the answered question."""
        return Rollout(
            problem=self.problem,
            group=self.group,
            sample=self.sample,
            prompt_ids=self.prompt_ids,
            response=response,
            text=judged.text,
            verdict=judged.verdict,
            reward=judged.reward,
        )


def student_questions(
    benchmarks: Mapping[str, Sequence[Problem]],
    prompts: Prompts,
    samples: int,
) -> list[Question]:
    """Every problem of every benchmark, ``samples`` times."""
    return [
        Question(STUDENT, benchmark, problem, group, sample, prompt_ids)
        for benchmark, problems in benchmarks.items()
        for group, problem in enumerate(problems)
        for prompt_ids in [prompts.student_ids(problem.question, problem.preceding)]
        for sample in range(samples)
    ]


def require_prompts_fit(
    questions: Sequence[Question], max_prompt_tokens: int, model_tokens: int
) -> None:
    """UserError where a prompt is longer than ``max_prompt_tokens``: an evaluation leaves nothing out."""
    lengths = [len(question.prompt_ids) for question in questions if not question.sample]
    if too_long := sum(length > max_prompt_tokens for length in lengths):
        are = f"prompts of {too_long} problems are" if too_long > 1 else "prompt of 1 problem is"
        raise UserError(
            f"sampling.max_prompt_tokens is {max_prompt_tokens}, and the {are} longer: it must be at "
            f"least {max(lengths)}, and the model takes {model_tokens} tokens of prompt and response"
        )


def teacher_questions(
    rollouts: Mapping[str, Sequence[Rollout]],
    context: Context,
    prompts: Prompts,
    max_prompt_tokens: int,
) -> Iterator[tuple[Question, bool]]:
    """One question for every rollout of the student view that the context shows something for.

    With each, whether its context had to be shortened.
    """
    for benchmark, answered in rollouts.items():
        for rollout, demonstration in zip(answered, context(answered, 0), strict=True):
            if demonstration is None:
                continue
            prompt = prompts.teacher_ids(
                rollout.problem.question,
                demonstration.template,
                demonstration.text,
                max_prompt_tokens,
                demonstration.keep_start,
                rollout.problem.preceding,
            )
            if prompt is not None:
                question = Question(
                    TEACHER, benchmark, rollout.problem, rollout.group, rollout.sample, prompt.ids
                )
                yield question, prompt.shortened
