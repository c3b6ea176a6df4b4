"""Rules about the length of a response."""


def soft_overlong_penalty(length: int, longest: int, buffer: int) -> float:
    """``min(-(length - (longest - buffer)) / buffer, 0)``: DAPO's penalty (arXiv:2503.14476, eq. 13).

    0 up to ``longest - buffer`` tokens, then linearly down to -1 at ``longest``.
    """
    return min(-(length - (longest - buffer)) / buffer, 0.0)
