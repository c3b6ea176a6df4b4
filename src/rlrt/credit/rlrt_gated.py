"""RLRT at critical positions only: where the two views disagree most."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlrt.batch import ScoredBatch
from rlrt.credit.rlrt import RLRT
from rlrt.validation import validated


def top_tokens(values_BT: Tensor, mask_BT: Tensor, fraction: float) -> Tensor:
    """``[B, T]`` bool: of every row's n tokens at least the ``ceil(fraction · n)`` largest.

    All ties at the threshold are in, so the choice depends on no order; equal values are all in.
    """
    # a hair less, as 0.1 · 30 is above 3 in floating point
    counts = [math.ceil(fraction * n - 1e-9) for n in mask_BT.sum(1).tolist()]
    if mask_BT.shape[1] == 0:
        return mask_BT
    ranked_BT = values_BT.masked_fill(~mask_BT, -torch.inf).sort(dim=1, descending=True).values
    last_B1 = torch.tensor(counts, device=mask_BT.device)[:, None].sub(1).clamp(min=0)
    return mask_BT & (values_BT >= ranked_BT.gather(1, last_B1))


class RLRTGated(RLRT):
    """RLRT's weight at tokens whose ``D̄_t`` is in the top ``fraction`` of their response. Beyond the paper.

    ``D̄_t = KL(P_S ‖ P_T)`` bounds what a token can tell of the outcome (Inf² ≤ 2 · D̄, Theorem 2):
    where the views agree on the whole, the log-ratio of one sampled token is mostly noise. Elsewhere
    the plain advantage stays. Chosen per response, so that a response far from its peer does not
    take the share of the others.

    ``fraction`` in (0, 1]; 1 is RLRT exactly. Ties at the threshold are all in: a response whose
    divergences are equal is reweighted throughout.
    """

    reads_divergence = True

    @validated("credit")
    def __init__(
        self,
        mixing: float = 0.5,
        mixing_decay_steps: int | None = None,
        clip_radius: float = 0.2,
        standardize: bool = True,
        fraction: Annotated[float, Field(gt=0, le=1)] = 0.2,
    ) -> None:
        super().__init__(mixing, mixing_decay_steps, clip_radius, standardize)
        self.fraction = fraction

    def acts_at(self, batch: ScoredBatch) -> Tensor:
        return top_tokens(batch.divergence_BT, batch.response_mask_BT, self.fraction)
