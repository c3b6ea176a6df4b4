"""Whether the cards can hold what training keeps on them."""

import pytest

from rlrt.assembly.memory import Held, require_room
from rlrt.errors import UserError
from rlrt.model.load import load_config, parameter_count

BILLION = 10**9
SMALL, LARGE = 80 * BILLION, 141 * BILLION  # bytes of a card


def test_four_billion_parameters_fit_a_card_of_141_gb_and_none_of_80() -> None:
    """64 GB in an update; 48 GB while sampling, beside 0.4 · 80 = 32 GB of the engine: a hair too much."""
    held = Held(4_020_000_000, 0, 0.4, False)
    require_room(held, 1, LARGE)
    with pytest.raises(UserError, match=r"64 GB .* 48 GB beside .* 40% .* at least 2 cards"):
        require_room(held, 1, SMALL)
    require_room(held, 2, SMALL)
    require_room(Held(4_020_000_000, 0, 0.4, True), 1, SMALL)  # 16 GB beside the engine


def test_eight_billion_need_several() -> None:
    held = Held(8_190_000_000, 0, 0.4, False)  # 131 and 98 GB
    with pytest.raises(UserError, match="at least 2 cards"):
        require_room(held, 1, LARGE)
    with pytest.raises(UserError, match="at least 3 cards"):
        require_room(held, 2, SMALL)
    require_room(held, 3, SMALL)


def test_a_teacher_of_its_own_takes_its_part() -> None:
    require_room(Held(5 * BILLION, 0, 0.0, False), 1, SMALL)
    with pytest.raises(UserError, match="100 GB during an update"):
        require_room(Held(5 * BILLION, 5 * BILLION, 0.0, False), 1, SMALL)


def test_parameters_are_counted_once_where_they_are_tied() -> None:
    # 427 x 128 embedding, also the head; 4 layers; by hand
    layer = 128 * (4 * 32 + 2 * 2 * 32) + 4 * 32 * 128 + 3 * 128 * 352 + 2 * 128 + 2 * 32
    assert parameter_count(load_config("models/tiny")) == 427 * 128 + 4 * layer + 128
