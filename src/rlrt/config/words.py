"""The words ``name=value`` that a command keeps to itself; all others are Hydra's."""

import os
import sys
from collections.abc import Sequence

from rlrt.errors import UserError


def helped(arguments: Sequence[str], usage: str) -> bool:
    """Whether the words ask for help, which is printed then; a reader may leave early, as ``head``."""
    if not {"--help", "-h"} & set(arguments):
        return False
    try:
        print(usage.strip(), flush=True)
    except BrokenPipeError:  # Python would complain once more when it closes its output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def own_words(
    arguments: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The values of those ``names`` that are given, and all other words, in their order.

    UserError where one of ``names`` has no value or stands there twice, and for an option.
    """
    own: dict[str, str] = {}
    rest = []
    for word in arguments:
        if word.startswith("-"):
            raise UserError(f"{word} is no word of this command: --help lists them")
        name, _, value = word.partition("=")
        if name not in names:
            rest.append(word)
            continue
        if not value:
            raise UserError(f"{name}= has no value")
        if name in own:
            raise UserError(
                f"{name}= is given twice: several values go into one, with commas between"
            )
        own[name] = value
    return own, tuple(rest)


def listed(name: str, value: str) -> tuple[str, ...]:
    """The items of ``a,b`` or ``[a,b]``; UserError where one is empty or stands there twice."""
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    items = tuple(item.strip() for item in value.split(","))
    if not all(items):
        raise UserError(f"{name} is {value}, in which an item between commas is empty")
    if doubled := sorted({item for item in items if items.count(item) > 1}):
        raise UserError(f"{name} names {', '.join(doubled)} twice")
    return items
