"""One process of test_ranks.py: its share of a step's groups and of an evaluation, written as JSON.

The engine is scripted: a response is its prompt and something of its seed.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tests.scripted_judge import ScriptedJudge

from rlrt import distributed
from rlrt.batch import Problem, Response
from rlrt.engine.engine import OnFinished, Sampling
from rlrt.training.evaluator import Evaluator
from rlrt.training.sampler import RolloutSettings, Sampler

SETTINGS = RolloutSettings(
    seed=1,
    rollouts_per_problem=2,
    problems_per_update=4,
    temperature=1.0,
    max_response_tokens=10,
    max_model_tokens=100,
    resample_rounds=3,
)


class Scripted(ScriptedJudge):
    """Engine, prompts and judge at once: odd responses are right."""

    @property
    def verifier(self) -> Any:
        return Scripted

    flip_probability = 0.0

    def student_ids(self, question: str, preceding: object = ()) -> tuple[int, ...]:
        return (int(question),)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished,
    ) -> list[Response]:
        found = []
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            ids = (prompt[0], *[seed % 97] * (1 + seed % 5))
            found.append(Response(ids, (-1.0,) * len(ids), truncated=seed % 3 == 0))
            on_finished(index, found[-1])
        return found

    def is_right(self, response: Response) -> bool:
        return response.ids[1] % 2 == 1


def problem(number: int) -> Problem:
    return Problem(str(number), str(number), "", "test")


def main(folder: Path) -> None:
    """Sample eight groups in updates of four; evaluate five problems, and then only one."""
    scripted: Any = Scripted()
    own = distributed.groups_of_rank(8, SETTINGS.problems_per_update)
    sampled = Sampler(SETTINGS, scripted, scripted, scripted)(
        [(group, problem(group)) for group in own],
        3,
        (problem(100 + number) for number in range(3)),
        lambda stage: nullcontext(),
    )
    evaluator = Evaluator(samples=4, pass_at=(1, 2))
    measured = [
        evaluator(scripted, [problem(n) for n in range(size)], [(n,) for n in range(size)],
                  scripted, 10, 7).metrics
        for size in (5, 1)
    ]  # fmt: skip
    found = {
        "rollouts": [
            (r.group, r.sample, r.problem.id, r.response.ids.tolist()) for r in sampled.rollouts
        ],
        "resampled": sampled.resampled_groups,
        "discarded": sampled.discarded_tokens,
        "measured": measured,
    }
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps(found))
