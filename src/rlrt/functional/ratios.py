"""Ratios of probabilities from differences of log-probs."""

from torch import Tensor

MAX_LOG_RATIO = 20.0  # exp() of it is finite in any float type, and far outside every clip


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """``exp(clamp(log_ratio, ±20))``: no difference of log-probs, however wild, overflows."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
