"""The proof, after every sync, that the engine serves the trainer's weights."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rlrt import distributed
from rlrt.batch import Ids
from rlrt.engine.engine import Engine, Sampling
from rlrt.errors import RunStoppedError
from rlrt.seeds import derive_seed

PROBE_PROMPTS = 8
PROBE_TOKENS = 8
NAMED = 3  # tensors of an error
Score = Callable[[Sequence[Ids], Sequence[Ids]], Tensor]
Weights = Iterable[tuple[str, Tensor]]


class StaleEngineError(RunStoppedError):
    """The engine's weights or log-probs are not the trainer's."""


@dataclass(frozen=True)
class Gap:
    """Absolute differences of engine and trainer log-probs over the probed tokens, in nats."""

    max: float
    mean: float


# What the proof cannot see is a forward pass that differs: another attention, temperature, position.
# float32 noise is near 1e-6. In bfloat16 both sides round at every layer, differently: means of 0.03
# to 0.06 are published of engines that are right, single tokens lie nats apart; a wrong pass has more.
LIMITS = {torch.float32: Gap(1e-4, 1e-4), torch.bfloat16: Gap(math.inf, 0.25)}


def require_same_weights(engine: Engine, weights: Weights, step: int) -> int:
    """How many tensors the engine was proven to serve to the bit: all of ``weights``, and no other.

    ``weights`` as for ``Engine.sync``, made anew. Collective: StaleEngineError on all ranks where a part
    of any rank's engine differs.
    """
    names: list[str] = []

    def noted() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            names.append(name)
            yield name, tensor

    differing = distributed.all_gather_object(engine.differing(noted()))
    wrong = list(dict.fromkeys(name for part in differing for name in part))
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise StaleEngineError(
            f"after the weight sync of step {step} the engine does not serve the policy's weights: "
            f"{len(wrong)} of {len(names)} tensors differ ({', '.join(wrong[:NAMED])}{more})"
        )
    return len(names)


def sync_and_prove(
    engine: Engine,
    weights: Callable[[], Weights],
    score: Score,
    prompts: Iterable[Ids],
    sampling: Sampling,
    seed: int,
    step: int,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Give the engine the weights, prove every tensor to the bit, and probe its log-probs.

    Returns the metrics of a sync that went well: seconds, tensors proven, and the probe's gap. Collective.
    ``weights()`` makes the tensors, once for the engine and once to compare; the others as in ``probe``.
    """
    began = time.perf_counter()
    engine.sync(weights())
    synced = time.perf_counter()
    tensors = require_same_weights(engine, weights(), step)
    proven = time.perf_counter()
    gap = probe(engine, score, prompts, sampling, seed, step, dtype)
    return {
        "time/sync_s": synced - began,
        "time/proof_s": proven - synced,
        "time/probe_s": time.perf_counter() - proven,
        "sync/proven_tensors": tensors,
        "sync/logprob_gap": gap.max,
        "sync/logprob_gap_mean": gap.mean,
    }


def probe(
    engine: Engine,
    score: Score,
    prompts: Iterable[Ids],
    sampling: Sampling,
    seed: int,
    step: int,
    dtype: torch.dtype,
) -> Gap:
    """The gap on a few short responses to the first of ``prompts``, which are read no further.

    ``score`` as in ``logprob_gap``; ``dtype`` is the engine's. A function of the weights, ``seed`` and
    ``step``. StaleEngineError where it is above its limit.
    """
    probed = list(islice(prompts, PROBE_PROMPTS))
    gap = logprob_gap(
        engine,
        score,
        probed,
        [derive_seed(seed, "probe", step, number) for number in range(len(probed))],
        replace(sampling, max_response_tokens=min(PROBE_TOKENS, sampling.max_response_tokens)),
    )
    require_fresh(gap, dtype, engine.max_logprob_gap, step)
    return gap


def logprob_gap(
    engine: Engine,
    score: Score,
    prompts: Sequence[Ids],
    seeds: Sequence[int],
    sampling: Sampling,
) -> Gap:
    """How far engine and trainer log-probs of freshly sampled tokens are apart, over all ranks.

    ``score(prompts, responses)`` gives the trainer's ``[B, T]``, 0 after each response's end. Every
    rank calls it exactly once, also one without prompts, and every rank gets the same gap.
    """
    sampled = engine.sample(prompts, seeds, sampling)
    logprobs_BT = score(prompts, [response.ids for response in sampled])
    own = [
        np.abs(scored_T[: len(response.ids)].double().numpy() - response.engine_logprobs)
        for scored_T, response in zip(logprobs_BT, sampled, strict=True)
    ]
    gaps = np.concatenate([gap for part in distributed.all_gather_object(own) for gap in part])
    assert len(gaps), "the probe sampled no token"
    return Gap(float(gaps.max()), float(gaps.mean()))  # both NaN where one of them is


def require_fresh(gap: Gap, dtype: torch.dtype, max_gap: float | None, step: int) -> None:
    """Raise StaleEngineError where a gap is above its limit, or not a number.

    The limits are those of the engine's dtype; ``max_gap`` takes the place of the one on the maximum.
    """
    usual = LIMITS[dtype]
    limit = usual if max_gap is None else Gap(max_gap, max(max_gap, usual.mean))
    if not (gap.max <= limit.max and gap.mean <= limit.mean):
        raise StaleEngineError(
            f"after the weight sync of step {step} the engine's log-probs differ from the trainer's "
            f"by up to {gap.max:.3g} nats, {gap.mean:.3g} on average (allowed: {limit.max:g} and "
            f"{limit.mean:g}; engine.max_logprob_gap sets the first): the engine computes something else"
        )
