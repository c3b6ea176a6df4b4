"""A pass or an update without enough memory ends in one sentence that names the settings to lower."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rlrt.errors import RunStoppedError

GIB = 2**30
# What PyTorch says of a GPU, and of the host: of that no more than the bytes it asked for.
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")
_FREE = re.compile(r"of which ([\d.]+ \w+) is free")
_HOST_FULL = "can't allocate memory"


class TrainingMemoryError(RunStoppedError):
    """An update or a reading of a view does not fit in memory."""


@contextmanager
def within_memory(doing: str, cures: Sequence[str]) -> Iterator[None]:
    """TrainingMemoryError where memory is full, on a device or on the host.

    ``doing``: what was done; ``cures``: the settings that may help, the first one first.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        plain = isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)
        if plain and _HOST_FULL not in str(error):
            raise
        raise TrainingMemoryError(
            f"out of memory in {doing}{_figures(str(error))}: use {', or '.join(cures)}"
        ) from error


def _figures(said: str) -> str:
    """What was asked and what was free, where the error says it."""
    asked, free = _ASKED.search(said), _FREE.search(said)
    parts = []
    if asked is not None:
        number, unit = asked.groups()
        amount = f"{float(number) / GIB:.2f} GiB" if unit == "bytes" else f"{number} {unit}"
        parts.append(f"{amount} asked for")
    if free is not None:
        parts.append(f"{free[1]} free")
    elif torch.cuda.is_available():
        parts.append(f"{torch.cuda.mem_get_info()[0] / GIB:.2f} GiB free")
    return f" ({', '.join(parts)})" if parts else ""
