"""Rollouts for contexts to choose from."""

from collections.abc import Callable
from typing import Any

import pytest

from rlrt.batch import Problem, Response, Rollout, Verdict


def _rollout(
    group: int,
    sample: int,
    reward: float,
    text: str | None = None,
    *,
    tokens: int = 1,
    verdict: Verdict | None = None,
    **problem: Any,
) -> Rollout:
    return Rollout(
        problem=Problem(id="p", question="2 + 2?", answer="4", source="test", **problem),
        group=group,
        sample=sample,
        prompt_ids=(1,),
        response=Response((2,) * tokens, (-0.5,) * tokens, truncated=False),
        text=f"solution {group}.{sample}" if text is None else text,
        verdict=verdict or (Verdict.RIGHT if reward else Verdict.WRONG),
        reward=reward,
    )


@pytest.fixture(scope="session")
def rollout() -> Callable[..., Rollout]:
    """Makes a rollout of a group from its sample number and reward; the text names both."""
    return _rollout
