"""OPSD: the policy learns from itself given a reference solution, on its own responses."""

from typing import Annotated

from pydantic import Field, PositiveFloat

from rlrt.credit.distillation import Distillation
from rlrt.loss.divergences import GeneralizedJSD
from rlrt.validation import validated


class OPSD(Distillation):
    """``loss_t = β · KL(T ‖ M) + (1 - β) · KL(S ‖ M)``, ``M = β T + (1 - β) S`` (arXiv:2601.18734).

    The divergence of the full vocabularies, without any reward: the frozen initial policy, which sees
    the reference solution and may think first, grades every token of a student that does neither.
    ``beta`` 0 is KL(T ‖ S). ``element_clip`` bounds the term of every vocabulary entry (its authors
    use 0.05) lest a few tokens of style rule the loss; a clipped loss can be negative.

    A rollout without a context is left out of sum and denominator; the method never looks at rewards,
    so groups of equal rewards teach as well as others.
    """

    @validated("credit")
    def __init__(
        self,
        beta: Annotated[float, Field(ge=0, le=1)] = 0.5,
        element_clip: Annotated[
            PositiveFloat | None, Field(description="it must be positive, or null for none")
        ] = None,
    ) -> None:
        self.divergence = GeneralizedJSD(beta, element_clip)
