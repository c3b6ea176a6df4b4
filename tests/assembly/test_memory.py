"""Whether the cards can hold what training keeps on them."""

import pytest

from rlrt.assembly.memory import require_room
from rlrt.errors import UserError
from rlrt.model.load import load_config, parameter_count

CARD = 80 * 10**9


def test_four_billion_parameters_fit_one_card_of_80_gb_and_eight_do_not() -> None:
    require_room(4 * 10**9, False, 1, CARD)
    with pytest.raises(UserError, match=r"take 131 GB, and 1 card of 80 GB .* of at least 2"):
        require_room(8_190_000_000, False, 1, CARD)
    require_room(8_190_000_000, False, 2, CARD)


def test_a_teacher_of_its_own_takes_its_part() -> None:
    require_room(4_500_000_000, False, 1, CARD)
    with pytest.raises(UserError, match="take 90 GB"):
        require_room(4_500_000_000, True, 1, CARD)


def test_parameters_are_counted_once_where_they_are_tied() -> None:
    # 427 x 128 embedding, also the head; 4 layers; by hand
    layer = 128 * (4 * 32 + 2 * 2 * 32) + 4 * 32 * 128 + 3 * 128 * 352 + 2 * 128 + 2 * 32
    assert parameter_count(load_config("models/tiny")) == 427 * 128 + 4 * layer + 128
