"""The rollouts of a step: sampled, judged, and where asked for sampled again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, Sampling
from rlrt.evaluation.judging import Judge, Judged
from rlrt.functional.lengths import soft_overlong_penalty
from rlrt.functional.seeds import derive_seed, derive_uniform

Clock = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class RolloutSettings:
    """What a rollout step samples. Lengths are in tokens; ``seed`` is the run's."""

    seed: int
    rollouts_per_problem: int
    problems_per_update: int
    temperature: float
    max_response_tokens: int
    max_model_tokens: int  # of either view, prompt and response together
    resample_rounds: int = 0
    overlong_buffer: int | None = None
    mask_truncated: bool = False
    record_rollouts: bool = True


@dataclass(frozen=True)
class Sampled:
    """The rollouts of a step, and what their sampling gave up: groups replaced, tokens thrown away."""

    rollouts: list[Rollout]
    resampled_groups: int
    discarded_tokens: int


class Sampler:
    """Samples K judged rollouts of every problem, group after group.

    ``resample_rounds``: up to so many times, groups whose shaped rewards are all equal are replaced by
    groups of other problems (DAPO's dynamic sampling, arXiv:2503.14476, §3.2); groups that never show
    a signal stay, so that a step always has its size.
    """

    def __init__(
        self, settings: RolloutSettings, engine: Engine, prompts: Prompts, judge: Judge
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.prompts = prompts
        self.judge = judge

    def __call__(
        self, problems: Sequence[Problem], step: int, spare: Iterator[Problem], clock: Clock
    ) -> Sampled:
        """``spare`` yields problems that the step does not ask, for groups that are replaced."""
        samples = self.settings.rollouts_per_problem
        rollouts = self._groups(list(enumerate(problems)), step, 0, clock)
        resampled = discarded = 0
        for turn in range(1, self.settings.resample_rounds + 1):
            groups = (
                rollouts[first : first + samples] for first in range(0, len(rollouts), samples)
            )
            silent = [number for number, group in enumerate(groups) if not _differ(group)]
            chosen = list(zip(silent, spare, strict=False))
            if not chosen:
                break
            fresh = self._groups(chosen, step, turn, clock)
            for place, (group, _) in enumerate(chosen):
                old = rollouts[group * samples : (group + 1) * samples]
                rollouts[group * samples : (group + 1) * samples] = fresh[place * samples :][
                    :samples
                ]
                discarded += sum(len(rollout.response.ids) for rollout in old)
            resampled += len(chosen)
        return Sampled(rollouts, resampled, discarded)

    def _groups(
        self, problems: Sequence[tuple[int, Problem]], step: int, turn: int, clock: Clock
    ) -> list[Rollout]:
        """The rollouts of (group, problem) pairs, in one call of the engine."""
        settings = self.settings
        rows = [
            (group, problem, sample, self.prompts.student_ids(problem.question))
            for group, problem in problems
            for sample in range(settings.rollouts_per_problem)
        ]
        with clock("rollout"):
            responses = self.engine.sample(
                [prompt_ids for *_, prompt_ids in rows],
                [self._seed("rollout", step, turn, group, sample) for group, _, sample, _ in rows],
                Sampling(settings.max_response_tokens, settings.temperature),
            )
        with clock("reward"):
            judged = self.judge(responses, [problem.answer for _, problem, _, _ in rows])
        return [
            Rollout(
                problem=problem,
                group=group,
                sample=sample,
                prompt_ids=prompt_ids,
                response=response,
                text=seen.text,
                verdict=seen.verdict,
                reward=self._reward(seen, self._seed("flip", step, turn, group, sample)),
                penalty=self._penalty(response),
            )
            for (group, problem, sample, prompt_ids), response, seen in zip(
                rows, responses, judged, strict=True
            )
        ]

    def _seed(self, purpose: str, step: int, turn: int, group: int, sample: int) -> int:
        word = f"{purpose} again {turn}" if turn else purpose
        return derive_seed(self.settings.seed, word, step, group, sample)

    def _reward(self, seen: Judged, seed: int) -> float:
        flips = derive_uniform(seed) < self.judge.verifier.flip_probability
        return 1 - seen.reward if flips and seen.verdict is not Verdict.UNDECIDED else seen.reward

    def _penalty(self, response: Response) -> float:
        buffer = self.settings.overlong_buffer
        if buffer is None:
            return 0.0
        return soft_overlong_penalty(len(response.ids), self.settings.max_response_tokens, buffer)


def _differ(group: Sequence[Rollout]) -> bool:
    return len({rollout.reward + rollout.penalty for rollout in group}) > 1
