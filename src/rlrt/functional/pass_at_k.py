"""pass@k from n samples of which c are correct."""

from math import prod


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate ``1 - C(n-c, k) / C(n, k)`` (arXiv:2107.03374, eq. 1), as a product.

    Raises ValueError unless ``0 <= correct <= samples`` and ``1 <= k <= samples``.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(
            f"pass@k needs 0 <= correct <= samples and 1 <= k <= samples, "
            f"found samples={samples}, correct={correct}, k={k}"
        )
    if samples - correct < k:
        return 1.0
    return 1.0 - prod(1.0 - k / n for n in range(samples - correct + 1, samples + 1))
