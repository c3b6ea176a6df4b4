"""What an engine is: something that samples responses with the policy's current weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from rlrt import distributed
from rlrt.batch import Ids, Response
from rlrt.model.policy import Policy
from rlrt.validation import validated

OnFinished = Callable[[int, Response], None]


@validated("")
@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. ``temperature`` 0 is greedy; ``top_p`` 1 leaves nothing out."""

    max_response_tokens: Annotated[PositiveInt, Field(description="it must be >= 1")]
    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class EngineSpec:
    """What an engine has to know about the policy it serves."""

    model_path: str
    stop_token_ids: tuple[int, ...]
    dtype: torch.dtype
    max_model_tokens: int  # prompt and response together
    gpu_memory_share: float | None = None  # of its card, what else is there left out; None: unknown


class Engine(Protocol):
    """Samples responses. Its log-probs are those it sampled with, at the sampling temperature.

    In a run of several processes every rank has its engine, and all ranks call every method in the
    same order; each samples its own prompts, and may have none.

    The constructor takes settings, checks them and loads nothing; ``start`` does the slow part.
    ``max_logprob_gap`` is the probe's limit in nats, null for the default of the dtype.
    """

    max_logprob_gap: float | None

    def require_ranks(self, count: int) -> None:
        """ValueError where it cannot serve a run of so many processes; before anything starts."""

    def require_shape(self, shape: PretrainedConfig) -> None:
        """ValueError where it cannot serve a model of this shape; before any weights load."""

    def start(self, policy: Policy, spec: EngineSpec) -> None:
        """Get ready; ``sync`` comes before the first ``sample``."""

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Serve these weights from now on: (Hugging Face name, tensor), lazily, in layer order."""

    def differing(self, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
        """Names of what it does not serve to the bit, of ``weights`` as for ``sync`` or of its own.

        Between ``sync`` and ``sample``. Each rank answers for its part of the engine.
        """

    def sample(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        """One response per prompt, in order; a response depends on its own prompt and seed.

        ``on_finished(index, response)`` is called with each response once, in the caller's thread, as
        soon as it is complete, while others are still being sampled.
        """

    def sleep(self) -> None:
        """Give accelerator memory back until the next ``sync``; nothing is sampled before it."""

    def close(self) -> None:
        """Give everything back."""


def engine_weights(
    policy: Policy | PreTrainedModel, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor in ``dtype``) in layer order, made one at a time.

    With tied embeddings the output head is no parameter of its own; it is sent all the same, under its
    own name, since the engine keeps it untied.

    The parts of a sharded policy are gathered one parameter at a time, which is collective: every rank
    reads the iterator to its end, and no rank holds more than one whole parameter.
    """
    names = set()
    for name, parameter in policy.named_parameters():
        names.add(name)
        yield name, _in_dtype(parameter, dtype)
    if "lm_head.weight" not in names:
        head = policy.get_output_embeddings()
        yield "lm_head.weight", _in_dtype(head.weight, dtype)


def _in_dtype(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    # cast before it travels; exact all the same
    return distributed.full_tensor(parameter.detach().to(dtype))
