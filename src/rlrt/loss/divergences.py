"""Divergences of the student's and the teacher's distribution, per token, with gradient to the student.

S and T are the two views' distributions over the vocabulary; values are in nats. Logits come at the
sampling temperature, ``[n, V]``. A logit of -inf is a probability of 0, and 0 · log 0 is 0: a value is
infinite where S and T rule it so, and then its gradient is not to be used. Every divergence is called
with ``(student_logits_nV, teacher_logits_nV, ids_n)`` and gives one value per token, float32 or better.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlrt.validation import validated

MIN_LOG_TAIL = math.log(-math.expm1(-1e-7))  # where next to nothing is left for the tail


class Divergence(Protocol):
    """What the two views' logits and the sampled ids give per token. Reads all ids or the top-K."""

    @property
    def top_k(self) -> int | None:
        """How many of the student's likeliest ids are told apart. None: all of them, or no choice."""

    def __call__(
        self, student_logits_nV: Tensor, teacher_logits_nV: Tensor, ids_n: Tensor
    ) -> Tensor: ...


@validated("credit")
@dataclass(frozen=True)
class AlphaDivergence:
    """SDPO's divergence (arXiv:2601.20802): ``(1-α) KL(S‖M) + α KL(T‖M)``, ``M = (1-α) S + α T``.

    At α = 0 it is KL(T‖S) and at α = 1 KL(S‖T); these ends are not the limits of the middle, which
    goes to 0 there. With ``top_k`` both views keep their log-probs of the student's K likeliest ids
    and one bucket for the rest, which never raises a divergence; at K = V nothing is left for a
    bucket and the value is the full one. The choice of ids carries no gradient. A bucket of less
    than 1e-7 counts as 1e-7, which alone may raise the value, by less than 4e-8.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    top_k: Annotated[
        PositiveInt | None, Field(description="it must be at least 1, or null for all ids")
    ] = 100

    def __call__(
        self, student_logits_nV: Tensor, teacher_logits_nV: Tensor, ids_n: Tensor
    ) -> Tensor:
        vocabulary = student_logits_nV.shape[-1]
        if self.top_k is None or self.top_k == vocabulary:
            return _divergence(student_logits_nV, teacher_logits_nV, self.alpha)
        assert self.top_k < vocabulary, f"top {self.top_k} of a vocabulary of {vocabulary}"
        ids_nK = student_logits_nV.detach().topk(self.top_k, dim=-1).indices
        student_nK = _TopKWithTail.apply(student_logits_nV, ids_nK)
        teacher_nK = _TopKWithTail.apply(teacher_logits_nV.detach(), ids_nK)
        return _PointwiseSum.apply(student_nK, teacher_nK, self.alpha, math.inf)


@validated("credit")
@dataclass(frozen=True)
class GeneralizedJSD:
    """OPSD's divergence (arXiv:2601.18734): ``β KL(T‖M) + (1-β) KL(S‖M)``, ``M = β T + (1-β) S``.

    Over the full vocabulary; β weighs the teacher, as in GKD (arXiv:2306.13649): β = 0 is KL(T‖S) and
    β = 1 is KL(S‖T). ``element_clip`` bounds every (position, id) term of the sum from above, the two
    KL terms of an id taken together. Terms below 0 stay, so that a token's loss can be negative; a
    clipped term has no gradient.
    """

    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    element_clip: Annotated[
        PositiveFloat | None, Field(description="it must be positive, or null for none")
    ] = None

    @property
    def top_k(self) -> None:
        return None

    def __call__(
        self, student_logits_nV: Tensor, teacher_logits_nV: Tensor, ids_n: Tensor
    ) -> Tensor:
        clip = math.inf if self.element_clip is None else self.element_clip
        return _divergence(student_logits_nV, teacher_logits_nV, self.beta, clip)


@dataclass(frozen=True)
class SampledToken:
    """SDPO's sampled-token variant: ``(ℓ - τ) · ℓ`` of the sampled id, the bracket detached.

    Its gradient, in expectation over ids sampled from S, is that of KL(S‖T) (the score function);
    its value estimates nothing.
    """

    @property
    def top_k(self) -> None:
        return None

    def __call__(
        self, student_logits_nV: Tensor, teacher_logits_nV: Tensor, ids_n: Tensor
    ) -> Tensor:
        student_n = _logprobs(student_logits_nV).gather(-1, ids_n[:, None]).squeeze(-1)
        teacher_n = _logprobs(teacher_logits_nV).gather(-1, ids_n[:, None]).squeeze(-1)
        return self.of_logprobs(student_n, teacher_n)

    def of_logprobs(self, student_n: Tensor, teacher_n: Tensor) -> Tensor:
        """From ℓ and τ themselves, where no other logits are there."""
        return (student_n - teacher_n).detach() * student_n


def kl(student_logits_nV: Tensor, teacher_logits_nV: Tensor) -> Tensor:
    """``D̄ = KL(P_S ‖ P_T)`` over the full vocabulary (arXiv:2605.10781), at each of n positions."""
    return _divergence(student_logits_nV, teacher_logits_nV, alpha=1.0)


def _divergence(
    student_logits_nV: Tensor,
    teacher_logits_nV: Tensor,
    alpha: float,
    element_clip: float = math.inf,
) -> Tensor:
    student_nV, teacher_nV = _logprobs(student_logits_nV), _logprobs(teacher_logits_nV.detach())
    return _PointwiseSum.apply(student_nV, teacher_nV, alpha, element_clip)


def _logprobs(logits_nV: Tensor) -> Tensor:
    dtype = torch.promote_types(logits_nV.dtype, torch.float32)
    return torch.log_softmax(logits_nV, dim=-1, dtype=dtype)


class _TopKWithTail(torch.autograd.Function):
    """Log-probs of the ids and, last, of all others together, from logits: ``[n, K + 1]``.

    The tail is ``log(-expm1(min(log Σ p, -1e-7)))``, the sum over the top-K, written over the others:
    where the top-K hold nearly all, float32 has no digits of ``1 - Σ p`` left, nor of its gradient.
    By hand, so that the backward keeps one tensor of the logits' size. With r the tail's probability,
    g the incoming gradients and G their sum, a logit's gradient is ``g - p G`` in the top-K and
    ``p (g_tail / r - G)`` outside; a tail at its floor has ``g_tail = 0``.
    """

    @staticmethod
    def forward(ctx: Any, logits_nV: Tensor, ids_nK: Tensor) -> Tensor:
        logprobs_nV = _logprobs(logits_nV)
        top_nK = logprobs_nV.gather(-1, ids_nK)
        others_nV = logprobs_nV.exp_().scatter_(-1, ids_nK, 0.0)
        tail_n1 = others_nV.sum(-1, keepdim=True).log_()
        ctx.save_for_backward(others_nV, ids_nK, top_nK, tail_n1)
        return torch.cat([top_nK, tail_n1.clamp(min=MIN_LOG_TAIL)], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nL: Tensor) -> tuple[Tensor, None]:
        others_nV, ids_nK, top_nK, tail_n1 = ctx.saved_tensors
        grad_nK, grad_tail_n1 = grad_nL[:, :-1], grad_nL[:, -1:]
        grad_tail_n1 = grad_tail_n1.masked_fill(tail_n1 < MIN_LOG_TAIL, 0.0)
        total_n1 = grad_nK.sum(-1, keepdim=True) + grad_tail_n1
        per_other_n1 = grad_tail_n1 * tail_n1.clamp(min=MIN_LOG_TAIL).neg().exp() - total_n1
        grad_nV = others_nV * per_other_n1
        return grad_nV.scatter_(-1, ids_nK, grad_nK - top_nK.exp() * total_n1), None


class _PointwiseSum(torch.autograd.Function):
    """Sum over ids of the terms of the α-divergence, from log-probs; gradient to the student's.

    By hand for two reasons: the backward keeps one tensor of the logits' size instead of six, and
    an id of probability 0 in both views has a gradient of 0 where the chain rule gives NaN.
    """

    @staticmethod
    def forward(
        ctx: Any, student_nV: Tensor, teacher_nV: Tensor, alpha: float, element_clip: float
    ) -> Tensor:
        terms_nV, slopes_nV = _terms(student_nV, teacher_nV, alpha)
        if element_clip < math.inf:
            slopes_nV.masked_fill_(terms_nV > element_clip, 0.0)
            terms_nV.clamp_(max=element_clip)
        ctx.save_for_backward(slopes_nV)
        return terms_nV.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_n: Tensor) -> tuple[Tensor | None, ...]:
        (slopes_nV,) = ctx.saved_tensors
        return slopes_nV * grad_n[:, None], None, None, None


def _terms(student_nV: Tensor, teacher_nV: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Terms of the divergence and their derivatives by the student's log-prob of the same id.

    Between the ends, M moves with S; the two KLs' derivatives through M sum to ``-(1-α) S``, which
    cancels that of S log S and leaves ``(1-α) S (log S - log M)``.
    """
    if alpha == 0:
        return _kl_terms(teacher_nV, student_nV), -teacher_nV.exp()
    if alpha == 1:
        terms_nV = _kl_terms(student_nV, teacher_nV)
        return terms_nV, terms_nV + student_nV.exp()
    mixture_nV = torch.logaddexp(student_nV + math.log1p(-alpha), teacher_nV + math.log(alpha))
    slopes_nV = _kl_terms(student_nV, mixture_nV).mul_(1 - alpha)
    return slopes_nV.add(_kl_terms(teacher_nV, mixture_nV), alpha=alpha), slopes_nV


def _kl_terms(of_nV: Tensor, against_nV: Tensor) -> Tensor:
    """``p (log p - log q)`` per id, 0 where p is 0 whatever q is."""
    probs_nV = of_nV.exp()
    # Filled where p == 0, not chosen where p > 0: a NaN must come through.
    return (of_nV - against_nV).mul_(probs_nV).masked_fill_(probs_nV == 0, 0.0)
