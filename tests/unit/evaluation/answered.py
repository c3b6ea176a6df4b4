"""Rollouts of models that answered with known success."""

from collections.abc import Mapping, Sequence

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.evaluation.paper import PaperRow
from rlrt.evaluation.summary import EvaluatedModel

VERDICTS = {"1": Verdict.RIGHT, "0": Verdict.WRONG, "?": Verdict.UNDECIDED}


def answered(samples: Mapping[str, str], prompt_ids: tuple[int, ...] = (1,)) -> list[Rollout]:
    """Rollouts by problem id: ``"10?"`` is a right, a wrong and an undecided sample.

    A wrong one is cut at the limit, and an undecided one earns 0.6: a setting may pay for it.
    """
    rewards = {"1": 1.0, "0": 0.0, "?": 0.6}
    return [
        Rollout(
            problem=Problem(id=problem, question="q", answer="1", source="s"),
            group=group,
            sample=number,
            prompt_ids=prompt_ids,
            response=Response((1,) * 3, (0.0,) * 3, truncated=sign == "0"),
            text="t",
            verdict=VERDICTS[sign],
            reward=rewards[sign],
        )
        for group, (problem, signs) in enumerate(samples.items())
        for number, sign in enumerate(signs)
    ]


def model(
    name: str,
    benchmarks: Mapping[str, Mapping[str, str]],
    teacher: Mapping[str, Mapping[str, str]] | None = None,
    paper: PaperRow | None = None,
) -> EvaluatedModel:
    """A model by what it answered."""
    return EvaluatedModel(
        name,
        paper,
        {benchmark: answered(samples) for benchmark, samples in benchmarks.items()},
        teacher
        and {benchmark: answered(samples, (1, 2)) for benchmark, samples in teacher.items()},
    )


def by_counts(counts: Sequence[int], samples: int) -> dict[str, str]:
    """Problems p0, p1, … with so many right samples each."""
    return {f"p{i:03d}": "1" * c + "0" * (samples - c) for i, c in enumerate(counts)}
