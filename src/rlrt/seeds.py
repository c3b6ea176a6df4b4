"""All randomness of a run, derived from what it is for."""

from hashlib import blake2b


def derive_seed(seed: int, purpose: str, *parts: int) -> int:
    """A 63-bit seed that depends on every argument and on nothing else.

    A sample of rollout step 12 gets the same seed whether the run reached the step in one go or was
    resumed just before it.
    """
    text = f"{seed}/{purpose}/" + "/".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def derive_uniform(seed: int) -> float:
    """A number in [0, 1) that a 63-bit seed stands for."""
    return seed / 2**63
