"""A teacher that knows only that the response will be correct: Lemma 1 and Theorem 2 of arXiv:2605.10781.

At a position the student gives token v the probability ``P_S(v)``, and a response that goes on with v ends
correct with probability ``f(v)``; ``f̄ = Σ P_S f`` is the position's success rate. Given that the response
ends correct, Bayes' rule makes of the student the teacher ``P_T(v) = P_S(v) f(v) / f̄``.

Lemma 1. ``D̂(v) = log P_S(v) - log P_T(v) = log f̄ - log f(v)``: the student's own share cancels, and what
the two views disagree about is how good a token is. Hence ``D̄ = Σ P_S D̂ = log f̄ - Σ P_S log f``.

Theorem 2. With ``Inf = Σ P_S |f - f̄|``, how much the choice of this token moves success on average,
``Inf² ≤ 2 D̄``. Proof: ``P_S |f - f̄| = f̄ |P_T - P_S|``, so that ``Inf = f̄ ‖P_S - P_T‖₁``. Pinsker's inequality
says ``‖P_S - P_T‖₁² ≤ 2 KL(P_S‖P_T) = 2 D̄``. Together ``Inf² ≤ 2 f̄² D̄``, and ``f̄ ≤ 1``.

So the bound is loose by f̄² to begin with, and where success is rare it says little. Pinsker is strict but
at P_S = P_T, hence equality holds only where f is the same for all tokens (0 = 0). No smaller constant
would do: two tokens of probability 1/2 with f = 1 and 1 - ε have ``Inf² / (2 D̄) = 1 - ε + O(ε²)``.

Where a token that the student may choose has f(v) = 0 the teacher rules it out, D̄ is infinite, and the bound
holds and says nothing. Where f̄ = 0 nothing ends correct and there is no such teacher: values are NaN.

All functions take ``P_S`` (sums to 1) and f in [0, 1], both ``[..., V]``, float64 where it matters.
"""

import torch
from torch import Tensor


def success_rate(student: Tensor, success: Tensor) -> Tensor:
    """``f̄``, shape ``[...]``."""
    return (student * success).sum(-1)


def bayesian_teacher(student: Tensor, success: Tensor) -> Tensor:
    """``P_T``, shape ``[..., V]``; NaN where f̄ = 0."""
    return student * success / success_rate(student, success)[..., None]


def disagreement(student: Tensor, success: Tensor) -> Tensor:
    """``D̂`` by Lemma 1 in nats, ``[..., V]``: infinite where f(v) = 0, NaN where f̄ = 0."""
    rate = success_rate(student, success)[..., None]
    return torch.where(rate > 0, rate.log() - success.log(), torch.nan)


def divergence(student: Tensor, success: Tensor) -> Tensor:
    """``D̄ = KL(P_S‖P_T)`` in nats, ``[...]``: infinite where the student may fail for sure, NaN where f̄ = 0.

    As ``Σ P_S (u - log(1 + u))`` with ``u = f / f̄ - 1``, whose mean is 0: no term is negative, so that
    small values keep their digits, which ``Σ P_S D̂`` loses.
    """
    rate = success_rate(student, success)[..., None]
    u = (success - rate) / rate
    # log1p has the digits where u is about 0, the difference of logs where it is about -1
    terms = student * (u - torch.where(u.abs() < 0.5, u.log1p(), success.log() - rate.log()))
    return terms.masked_fill((student == 0) & (rate > 0), 0.0).sum(-1)


def influence(student: Tensor, success: Tensor) -> Tensor:
    """``Inf``, shape ``[...]``, in [0, 1/2]."""
    rate = success_rate(student, success)[..., None]
    return (student * (success - rate).abs()).sum(-1)
