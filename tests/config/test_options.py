"""Options below the least that they may be."""

import math
from argparse import Namespace

import pytest

from rlrt.config.commands import require_at_least
from rlrt.errors import UserError


def test_what_may_stand_passes() -> None:
    require_at_least(Namespace(problems=1, z=0.0, limit=None, other=-1), problems=1, z=0, limit=1)


@pytest.mark.parametrize("value", [0, -3, math.nan])
def test_what_is_too_small_is_named_as_it_is_written(value: float) -> None:
    with pytest.raises(UserError, match=rf"^--max-new is {value}, it must be at least 1$"):
        require_at_least(Namespace(problems=1, max_new=value), problems=1, max_new=1)
