from rlrt.functional.lengths import soft_overlong_penalty


def test_the_penalty_by_hand() -> None:
    """DAPO's figures: 20480 tokens, a buffer of 4096."""
    found = [soft_overlong_penalty(n, 20480, 4096) for n in (0, 16384, 17408, 18432, 20480)]
    assert found == [0.0, 0.0, -0.25, -0.5, -1.0]
