"""The arguments of the evaluation's command."""

from pathlib import Path

import pytest

from rlrt.errors import UserError
from rlrt.evaluation.arguments import Command, parse


def test_its_own_words_and_those_of_hydra() -> None:
    words = parse(
        ["model=[tiny, logs/a=b]", "sampling.samples=4", "benchmark=all,x.jsonl", "out=~/an out"]
    )
    assert words == Command(
        ("tiny", "logs/a=b"),
        ("all", "x.jsonl"),
        None,
        Path("~/an out").expanduser(),
        ("sampling.samples=4",),
    )
    assert words.named_settings == {"sampling.samples"}
    assert parse(["model=a", "benchmark=b", "+sampling=tiny"]).named_settings == {"sampling"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("benchmark=arithmetic", "model= is missing, as in model=tiny benchmark=arithmetic"),
        ("model=tiny", "benchmark= is missing"),
        ("model=tiny benchmark", "benchmark= has no value"),
        ("model= benchmark=all", "model= has no value"),
        ("model=tiny model=tiny benchmark=all", "model= is given twice"),
        ("model=tiny,tiny benchmark=all", "model names tiny twice"),
        ("model=tiny,,a benchmark=all", "an item between commas is empty"),
        ("--multirun model=tiny benchmark=all", "--multirun is no word of this command: --help"),
    ],
)
def test_words_that_are_wrong(arguments: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(arguments.split())
