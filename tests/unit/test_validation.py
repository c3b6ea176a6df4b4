"""What a constructor states of its settings, and the sentence for a value that does not fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rlrt.validation import check_settings, validated


class Method:
    @validated("credit")
    def __init__(
        self,
        mixing: Annotated[float, Field(ge=0, le=1)] = 0.5,
        radius: Annotated[float, Field(gt=0, le=1)] | None = None,
        steps: PositiveInt | None = None,
        weight: NonNegativeFloat = 0.0,
        rate: PositiveFloat = 1.0,
        kind: Literal["first", "last"] = "first",
        seeds: Sequence[NonNegativeInt] = (),
        pair: tuple[float, float] = (0.0, 1.0),
        top: Annotated[PositiveInt | None, Field(description="it must be 1 or null")] = None,
        part: "Method | None" = None,
        shape: dict[str, int] | None = None,
    ) -> None:
        self.mixing = mixing


@validated("training")
@dataclass(frozen=True)
class Sizes:
    problems: PositiveInt


OUTSIDE = [
    ("mixing", 2, "credit.mixing is 2, it must lie in [0, 1]"),
    ("radius", 0, "credit.radius is 0, it must be null or lie in (0, 1]"),
    ("steps", 0, "credit.steps is 0, it must be null or at least 1"),
    ("weight", -0.1, "credit.weight is -0.1, it must not be negative"),
    ("rate", 0, "credit.rate is 0, it must be above 0"),
    ("seeds", [3, -1], "credit.seeds is -1, it must be at least 0"),
    ("top", 0, "credit.top is 0, it must be 1 or null"),
    ("steps", 1.5, "credit.steps is 1.5, it must be a whole number or null"),
    ("mixing", [0.5], "credit.mixing is [0.5], it must be a finite number"),
    ("pair", [0.5], "credit.pair is [0.5], it must be a list of 2, each a finite number"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), OUTSIDE)
def test_the_same_sentence_from_python_and_from_a_configuration(
    name: str, value: Any, sentence: str
) -> None:
    for refuse in (
        lambda: Method(**{name: value}),
        lambda: check_settings(Method, {name: value}, "credit"),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole sentence is below
            refuse()
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "value", "in_python", "in_yaml"),
    [
        ("mixing", True, "True", "true"),
        ("mixing", math.nan, "nan", "NaN"),
        ("mixing", None, "None", "null"),
        ("kind", "best", "'best'", '"best"'),
    ],
)
def test_a_value_is_spelled_where_it_comes_from(
    name: str, value: Any, in_python: str, in_yaml: str
) -> None:
    with pytest.raises(ValueError, match=rf"^credit\.{name} is {in_python}, it must be "):
        Method(**{name: value})
    with pytest.raises(ValueError, match=rf"^credit\.{name} is {in_yaml}, it must be "):
        check_settings(Method, {name: value}, "credit")


def test_what_fits_stays_as_it_is() -> None:
    whole = Method(1, steps=3, seeds=(1, 2), pair=(0.1, 0.2), part=Method())
    assert type(whole.mixing) is int
    check_settings(Method, {"part": {"_target_": "x"}, "seeds": [1], "pair": [0, 1]}, "credit")


def test_a_dataclass_and_settings_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"^training\.problems is 0, it must be at least 1$"):
        Sizes(0)
    with pytest.raises(ValueError, match=r"^credit\.mixin is no setting; credit has: mixing, rad"):
        check_settings(Method, {"mixin": 1}, "credit")
    with pytest.raises(ValueError, match=r"^credit\.shape is 3, it must be a mapping or null$"):
        check_settings(Method, {"shape": 3}, "credit")
    with pytest.raises(ValueError, match=r"^seed is true, it must be a whole number$"):
        check_settings(_seeded, {"seed": True}, "")


def _seeded(seed: int) -> None:
    """Takes one setting without a group."""
