"""The proof, after every sync, that the engine serves the trainer's weights."""

from collections.abc import Callable, Sequence

from torch import Tensor

from rlrt.engine.engine import Engine, Sampling
from rlrt.errors import RunStoppedError

Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Tensor]


class StaleEngineError(RunStoppedError):
    """The engine's log-probs are not the trainer's."""


def logprob_gap(
    engine: Engine,
    score: Score,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> float:
    """Largest absolute difference, in nats, between engine and trainer log-probs of sampled tokens.

    ``score(prompts, responses)`` gives the trainer's ``[B, T]``, 0 behind each response's end.
    """
    sampled = engine.sample(prompts, seeds, sampling)
    logprobs_BT = score(prompts, [response.ids for response in sampled])
    return max(
        (
            abs(float(logprobs_BT[row, t]) - value)
            for row, response in enumerate(sampled)
            for t, value in enumerate(response.engine_logprobs)
        ),
        default=0.0,
    )


def require_fresh(gap: float, limit: float, step: int) -> None:
    """Raise StaleEngineError where the gap is above the limit, or not a number."""
    if not gap <= limit:
        raise StaleEngineError(
            f"after the weight sync of step {step} the engine's log-probs differ from the trainer's "
            f"by up to {gap:.3g} nats (engine.max_logprob_gap is {limit:g}): the engine does not "
            "serve the policy's weights"
        )
