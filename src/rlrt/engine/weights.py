"""The policy's weights as an engine takes them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlrt import distributed


def engine_weights(policy: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
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
        head = policy.get_output_embeddings()  # type: ignore[operator]
        yield "lm_head.weight", _in_dtype(head.weight, dtype)


def _in_dtype(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return distributed.full_tensor(
        parameter.detach().to(dtype)
    )  # cast before it travels; exact all the same
