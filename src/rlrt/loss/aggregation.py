"""How token losses of one optimizer update become one number.

Every aggregation is a weight per token, fixed before the update is split: the loss is the plain sum
of ``weight * token loss`` over all micro-batches and ranks, so no split can change it. Denominators are
counted over all ranks, so everything here is collective.
"""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from rlrt import distributed
from rlrt.validation import validated

Kind = Literal["token_mean", "sequence_mean", "constant_length"]


def mean_one(weights_BT: Tensor) -> Tensor:
    """Weights scaled to a mean of 1 over those above 0, on all ranks; all stay 0 where none is."""
    found = torch.stack([(weights_BT > 0).sum().double(), weights_BT.double().sum()])
    above, total = distributed.all_reduce_sum(found).tolist()
    return weights_BT * (above / total) if total > 0 else weights_BT


class Aggregation:
    """Weights ``[B, T]`` of the token losses of one update, from the mask of tokens that count.

    ``token_mean``: 1 / all response tokens of the update. ``sequence_mean``: each response's own mean,
    averaged over responses. ``constant_length``: 1 / (responses * ``constant_length``)
    (arXiv:2503.20783, §3.2). Responses of which no token counts add nothing
    to any denominator.
    """

    @validated("aggregation")
    def __init__(
        self,
        kind: Kind = "token_mean",
        constant_length: PositiveInt | None = None,
    ) -> None:
        if (kind == "constant_length") != (constant_length is not None):
            raise ValueError(
                f"aggregation.constant_length is {constant_length}, it must be set with "
                f"kind=constant_length and only there (kind is {kind})"
            )
        self.kind = kind
        self.constant_length = constant_length

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Weights ``[B, T]`` that are 0 outside the mask; an update without a token gives all 0."""
        length_B1 = mask_BT.sum(1, keepdim=True)
        counts = distributed.all_reduce_sum(
            torch.stack([length_B1.sum(), (length_B1 > 0).sum()])
        ).clamp(min=1)
        tokens, responses = counts.tolist()
        mask_BT = mask_BT.to(dtype)
        if self.kind == "token_mean":
            return mask_BT / tokens
        if self.kind == "sequence_mean":
            return mask_BT / (length_B1.clamp(min=1) * responses)
        assert self.constant_length is not None
        return mask_BT / (responses * self.constant_length)
