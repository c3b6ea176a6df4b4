"""All settings of a run as a report shows them, and where those of several differ."""

from collections.abc import Sequence
from typing import Any

from rlrt.analysis.methods import leaves, spelled
from rlrt.analysis.text import visible

ABSENT = "–"  # of a setting that a run does not have

Settings = dict[str, str]  # by full name, as in credit.mixing


def flat(settings: Any) -> Settings:
    """Nested settings by their full names, each value as one line of text."""
    return {
        visible(name, kept=""): visible(spelled(value), kept="")
        for name, value in leaves(settings).items()
    }


def differences(settings: Sequence[Settings]) -> dict[str, list[str]]:
    """The settings whose values are not the same in all of these, by name; ABSENT where one has none."""
    names = dict.fromkeys(name for one in settings for name in one)
    rows = {name: [one.get(name, ABSENT) for one in settings] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def by_method(
    rows: dict[str, list[str]], members: Sequence[Sequence[int]]
) -> dict[str, list[list[str]]]:
    """For each setting and method the value that its runs agree on, or else that of each of them;
    ``members`` are the numbers of each method's runs.
    """

    def values(row: Sequence[str], runs: Sequence[int]) -> list[str]:
        found = [row[run] for run in runs]
        return found if len(set(found)) > 1 else found[:1]

    return {name: [values(row, runs) for runs in members] for name, row in rows.items()}
