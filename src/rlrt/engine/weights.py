"""The policy's weights as an engine takes them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def engine_weights(policy: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor in ``dtype``) in layer order, made one at a time.

    With tied embeddings the output head is no parameter of its own; it is sent all the same, under its
    own name, since the engine keeps it untied.
    """
    names = set()
    for name, parameter in policy.named_parameters():
        names.add(name)
        yield name, parameter.detach().to(dtype)
    if "lm_head.weight" not in names:
        head = policy.get_output_embeddings()  # type: ignore[operator]
        yield "lm_head.weight", head.weight.detach().to(dtype)
