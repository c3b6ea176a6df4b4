import pytest
import torch

from rlrt.loss.objective import Aggregation

MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation("token_mean"), [[1 / 4] * 3, [1 / 4, 0, 0], [0, 0, 0]]),
        (Aggregation("sequence_mean"), [[1 / 6] * 3, [1 / 2, 0, 0], [0, 0, 0]]),
        (Aggregation("constant_length", 8), [[1 / 16] * 3, [1 / 16, 0, 0], [0, 0, 0]]),
    ],
)
def test_weights_worked_out_by_hand(aggregation: Aggregation, expected: list[list[float]]) -> None:
    """The empty third response is in no denominator."""
    torch.testing.assert_close(
        aggregation(MASK, torch.float64), torch.tensor(expected, dtype=torch.float64)
    )


def test_no_token_at_all_gives_zero_weights() -> None:
    for aggregation in (
        Aggregation(),
        Aggregation("sequence_mean"),
        Aggregation("constant_length", 4),
    ):
        assert (
            aggregation(torch.zeros(2, 3, dtype=torch.bool), torch.float32).tolist()
            == [[0] * 3] * 2
        )


@pytest.mark.parametrize(
    ("kind", "constant"),
    [("mean", None), ("token_mean", 5), ("constant_length", None), ("constant_length", 0)],
)
def test_settings_that_do_not_fit_are_refused(kind: str, constant: int | None) -> None:
    with pytest.raises(ValueError, match=r"aggregation\.(kind|constant_length) is"):
        Aggregation(kind, constant)
