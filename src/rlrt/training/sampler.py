"""The rollouts of a step: sampled, judged, where asked for sampled again, and spread over the ranks."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from rlrt import distributed
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, Sampling
from rlrt.reward.judge import Judge, JudgedResponse
from rlrt.seeds import derive_seed, derive_uniform
from rlrt.training.scoring import outcomes_of


def soft_overlong_penalty(length: int, longest: int, buffer: int) -> float:
    """``min(-(length - (longest - buffer)) / buffer, 0)``: DAPO's penalty (arXiv:2503.14476, eq. 13).

    0 up to ``longest - buffer`` tokens, then linearly down to -1 at ``longest``.
    """
    return min(-(length - (longest - buffer)) / buffer, 0.0)


class Cost(NamedTuple):
    """Tokens of a group: those that its update reads, and all."""

    group: int
    credited: int
    total: int


def balanced(
    rollouts: Sequence[Rollout], assigner: CreditAssigner, step: int, problems_per_update: int
) -> list[Rollout]:
    """The rollouts of the groups that this rank is to score and train on, group after group; collective.

    Whole groups move, so that peers and advantages stay on one rank. What may get credit is known
    from the outcomes alone.
    """
    if distributed.get_world_size() == 1:
        return list(rollouts)
    outcomes = outcomes_of(rollouts)
    every_B = torch.ones_like(outcomes.group_B, dtype=torch.bool)
    own_costs = costs_of(rollouts, assigner.credited(outcomes, every_B, step))
    costs = [cost for part in distributed.all_gather_object(own_costs) for cost in part]
    owner_of = owners(costs, problems_per_update, distributed.get_world_size())
    for_rank: list[list[Rollout]] = [[] for _ in range(distributed.get_world_size())]
    for rollout in rollouts:
        for_rank[owner_of[rollout.group]].append(rollout)
    own = [rollout for part in distributed.all_to_all_object(for_rank) for rollout in part]
    return sorted(own, key=lambda rollout: (rollout.group, rollout.sample))


def costs_of(rollouts: Sequence[Rollout], credited_B: Tensor) -> list[Cost]:
    """Of each group; its prompt is read once."""
    rows = zip(rollouts, credited_B.tolist(), strict=True)
    costs = []
    for group, members in groupby(rows, key=lambda row: row[0].group):
        group_rows = list(members)
        prompt = len(group_rows[0][0].prompt_ids)
        credited = sum(len(rollout.response.ids) for rollout, used in group_rows if used)
        total = prompt + sum(len(rollout.response.ids) for rollout, _ in group_rows)
        costs.append(Cost(group, credited + prompt if credited else 0, total))
    return costs


def owners(costs: Sequence[Cost], problems_per_update: int, count: int) -> dict[int, int]:
    """The rank of each group, of ``count``: the most costly group first, to the rank that has the least.

    Counted are the tokens of its update that are read with credit, then all tokens of the step.
    """
    credited: Counter[tuple[int, int]] = Counter()  # by update and rank
    totals = [0] * count
    owner_of: dict[int, int] = {}
    largest_first = sorted(costs, key=lambda cost: (-cost.credited, -cost.total, cost.group))
    for cost in largest_first:
        update = cost.group // problems_per_update
        owner = min(range(count), key=lambda rank: (credited[update, rank], totals[rank], rank))
        credited[update, owner] += cost.credited
        totals[owner] += cost.total
        owner_of[cost.group] = owner
    return owner_of


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
    score_all: bool = False
    record_rollouts: bool = True


@dataclass(frozen=True)
class Sampled:
    """This rank's rollouts of a step, and what their sampling gave up: groups replaced, tokens thrown
    away, and verdicts that the verifier's own errors prevented.

    All are the rank's own; the numbers of the whole step are their sums over the ranks.
    """

    rollouts: list[Rollout]
    resampled_groups: int
    discarded_tokens: int
    verifier_errors: int = 0


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
        self,
        groups: Sequence[tuple[int, Problem]],
        step: int,
        spare: Iterator[Problem],
        clock: Clock,
    ) -> Sampled:
        """``groups``: this rank's, by their numbers within the whole step, in order.

        ``spare`` yields problems that the step does not ask, for groups that are replaced, and the same
        ones on every rank: what is sampled does not depend on the number of ranks. Collective.
        """
        self._verifier_errors = 0
        rollouts_of = self._groups(groups, step, 0, clock)
        resampled = discarded = 0
        for turn in range(1, self.settings.resample_rounds + 1):
            # all ranks see all silent groups and hand out the spare problems in one order
            own = [group for group, rollouts in rollouts_of.items() if not _differ(rollouts)]
            silent = sorted(group for part in distributed.all_gather_object(own) for group in part)
            replaced = list(zip(silent, spare, strict=False))
            if not replaced:
                break
            chosen = [(group, problem) for group, problem in replaced if group in rollouts_of]
            discarded += sum(len(r.response.ids) for group, _ in chosen for r in rollouts_of[group])
            resampled += len(chosen)
            rollouts_of |= self._groups(chosen, step, turn, clock)
        rollouts = [rollout for group in rollouts_of.values() for rollout in group]
        return Sampled(rollouts, resampled, discarded, self._verifier_errors)

    def _groups(
        self, groups: Sequence[tuple[int, Problem]], step: int, turn: int, clock: Clock
    ) -> dict[int, list[Rollout]]:
        """The rollouts of each group, in one call of the engine, which has them judged meanwhile."""
        settings = self.settings
        rows = [
            (group, problem, sample, prompt_ids)
            for group, problem in groups
            for prompt_ids in [
                self.prompts.student_ids(problem.question, problem.preceding)
            ]  # one for its rollouts
            for sample in range(settings.rollouts_per_problem)
        ]
        with self.judge.judging([problem.accepted_answers for _, problem, _, _ in rows]) as judging:
            with clock("rollout"):
                responses = self.engine.sample(
                    [prompt_ids for *_, prompt_ids in rows],
                    [self._seed("rollout", step, turn, g, sample) for g, _, sample, _ in rows],
                    Sampling(settings.max_response_tokens, settings.temperature),
                    judging.take,
                )
            with clock("reward"):  # what is still undecided when the last response has ended
                judged = judging.judged()
        self._verifier_errors += sum(verdict.failed for verdict in judged)
        rollouts_of: dict[int, list[Rollout]] = {group: [] for group, _ in groups}
        for (group, problem, sample, prompt_ids), response, judgment in zip(
            rows, responses, judged, strict=True
        ):
            rollout = Rollout(
                problem=problem,
                group=group,
                sample=sample,
                prompt_ids=prompt_ids,
                response=response,
                text=judgment.text,
                verdict=judgment.verdict,
                reward=self._reward(judgment, self._seed("flip", step, turn, group, sample)),
                penalty=self._penalty(response),
            )
            rollouts_of[group].append(rollout)
        return rollouts_of

    def _seed(self, purpose: str, step: int, turn: int, group: int, sample: int) -> int:
        # Of what a response is, never of where it is sampled: a resumed run and any number of ranks draw
        # the same. The first turn's word has no number, so that runs without resampling share its seeds.
        word = f"{purpose} again {turn}" if turn else purpose
        return derive_seed(self.settings.seed, word, step, group, sample)

    def _reward(self, judged: JudgedResponse, seed: int) -> float:
        flips = derive_uniform(seed) < self.judge.verifier.flip_probability
        return (
            1 - judged.reward
            if flips and judged.verdict is not Verdict.UNDECIDED
            else judged.reward
        )

    def _penalty(self, response: Response) -> float:
        buffer = self.settings.overlong_buffer
        if buffer is None:
            return 0.0
        return soft_overlong_penalty(len(response.ids), self.settings.max_response_tokens, buffer)


def _differ(group: Sequence[Rollout]) -> bool:
    return len({rollout.reward + rollout.penalty for rollout in group}) > 1
