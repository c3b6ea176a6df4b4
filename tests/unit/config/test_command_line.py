"""What the commands share: their options, the words that they keep to themselves, the card's memory."""

import math
import os
from argparse import Namespace

import pytest

from rlrt.config.command_line import (
    ALLOCATOR_SETTINGS,
    command_options,
    grow_segments,
    parse_list,
    require_at_least,
)
from rlrt.errors import UserError


def test_what_may_stand_passes() -> None:
    require_at_least(Namespace(problems=1, z=0.0, limit=None, other=-1), problems=1, z=0, limit=1)


@pytest.mark.parametrize("value", [0, -3, math.nan])
def test_what_is_too_small_is_named_as_it_is_written(value: float) -> None:
    with pytest.raises(UserError, match=rf"^--max-new is {value}, it must be at least 1$"):
        require_at_least(Namespace(problems=1, max_new=value), problems=1, max_new=1)


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


@pytest.mark.parametrize("name", [None, *ALLOCATOR_SETTINGS])
def test_segments_grow_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    for known in ALLOCATOR_SETTINGS:
        monkeypatch.setenv(known, "")  # so that it is restored
        monkeypatch.delenv(known)
    if name is not None:
        monkeypatch.setenv(name, "max_split_size_mb:512")
    grow_segments()
    found = {known: os.environ[known] for known in ALLOCATOR_SETTINGS if known in os.environ}
    own = {name: "max_split_size_mb:512"}
    assert found == (own if name else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
