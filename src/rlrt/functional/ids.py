"""Token ids as arrays: a step of a study has tens of millions, and none of them is a Python number."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = Sequence[int] | NDArray[np.int32]


def as_array(ids: Ids) -> NDArray[np.int32]:
    """The ids as an array; an array of this type is not copied."""
    return np.asarray(ids, dtype=np.int32)


def joined(sequences: Sequence[Ids]) -> Tensor:
    """The ids of all sequences one after the other, long, on the CPU."""
    parts = [as_array(ids) for ids in sequences]
    flat = np.concatenate(parts, dtype=np.int64) if parts else np.empty(0, np.int64)
    return torch.from_numpy(flat)


def token_mask(sequences: Sequence[Ids]) -> Tensor:
    """``[B, T]`` bool: True on the tokens of each sequence, padded on the right to the longest."""
    lengths_B = torch.tensor([len(ids) for ids in sequences], dtype=torch.long)
    longest = max(map(len, sequences), default=0)
    return torch.arange(longest) < lengths_B[:, None]


def rows_by_prompt(prompts: Sequence[Ids]) -> list[list[int]]:
    """The rows of each prompt, in the order in which prompts come first. A shared object is read once."""
    keys: dict[int, bytes] = {}
    found: dict[bytes, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if id(prompt) not in keys:
            keys[id(prompt)] = as_array(prompt).tobytes()
        found.setdefault(keys[id(prompt)], []).append(row)
    return list(found.values())
