"""A command's own words, told from Hydra's."""

import pytest

from rlrt.config.commands import command_options, parse_list
from rlrt.errors import UserError


def test_own_words_and_the_rest_in_their_order() -> None:
    words = ["seed=1", "out=a=b", "output=c", "+data.out=2", "benchmark=x", "data"]
    assert command_options(words, ("out", "benchmark", "examples")) == (
        {"out": "a=b", "benchmark": "x"},
        ("seed=1", "output=c", "+data.out=2", "data"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out"], "^out= has no value$"),
        (["--out=a"], "^--out=a is no word of this command: --help lists them$"),
        (["out="], "^out= has no value$"),
        (["out=a", "seed=1", "out=a"], "^out= is given twice"),
    ],
)
def test_own_words_that_cannot_be_meant(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        command_options(words, ("out",))


@pytest.mark.parametrize("value", ["a,b=c", "[a,b=c]", " a , b=c "])
def test_lists_with_and_without_brackets(value: str) -> None:
    assert parse_list("model", value) == ("a", "b=c")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a,,b", "model is a,,b, in which an item between commas is empty"),
        ("[]", "an item between commas is empty"),
        ("a,b,a", "model names a twice"),
    ],
)
def test_lists_that_cannot_be_meant(value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_list("model", value)
