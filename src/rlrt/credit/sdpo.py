"""SDPO: the policy learns from itself given a correct peer's solution."""

from typing import Annotated

from pydantic import Field, PositiveInt

from rlrt.credit.distillation import Distillation
from rlrt.loss.divergences import AlphaDivergence, SampledToken
from rlrt.validation import validated


class SDPO(Distillation):
    """``loss_t = min(exp(ℓ - s), limit) · D_α(S, T)`` on rollouts with a context (arXiv:2601.20802).

    The divergence replaces the policy loss: where the same model, shown a correct peer, would write
    something else, the student is pulled there, whatever its own response was worth. ``alpha`` 0 is
    KL(T ‖ S), 1 is KL(S ‖ T), between them a Jensen–Shannon mixture. ``top_k`` keeps the student's
    likeliest tokens and one bucket for the rest (null: the full vocabulary). ``importance_limit``
    bounds the weight of a mini-batch that the policy has moved away from (null: no weight).
    ``sampled_token`` estimates KL(S ‖ T) from the sampled token alone: noisier.

    Without a correct peer in its group a rollout is left out; a group without any correct rollout
    teaches nothing, one of correct rollouts only teaches all the same. The study sees the reward of
    base models fall to 0 within about 20 steps while the responses grow.
    """

    @validated("credit")
    def __init__(
        self,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        top_k: Annotated[
            PositiveInt | None, Field(description="it must be at least 1, or null for all ids")
        ] = 100,
        importance_limit: Annotated[float, Field(ge=1)] | None = 2.0,
        sampled_token: bool = False,
    ) -> None:
        if sampled_token and alpha != 1:
            raise ValueError(
                f"credit.alpha is {alpha}, it must be 1 with credit.sampled_token: "
                "a sampled token estimates KL(S || T) only"
            )
        if sampled_token and top_k is not None:
            raise ValueError(f"credit.top_k is {top_k}, it must be null with credit.sampled_token")
        self.importance_limit = importance_limit
        self.divergence = SampledToken() if sampled_token else AlphaDivergence(alpha, top_k)
