"""An engine without enough memory ends in one sentence that names the settings to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rlrt.errors import RunStoppedError

# What vLLM 0.20 to 0.32 and PyTorch say: the cache holds not even one sequence, or memory is full.
_CACHE_TOO_SMALL = re.compile(r"No available memory for the cache blocks|KV\s+cache is needed")
_MEMORY_FULL = re.compile(
    r"out of memory|can't allocate memory|Free memory on device|Available memory on node",
    re.IGNORECASE,
)


class EngineMemoryError(RunStoppedError):
    """The engine does not fit in the memory that it may take."""


@contextmanager
def within_memory(share: str, doing: str) -> Iterator[None]:
    """EngineMemoryError for whatever an engine raises where memory does not suffice.

    ``share``: the setting that says how much it takes; ``doing``: what it did, in the past tense.
    """
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        said = str(error).strip()
        if _CACHE_TOO_SMALL.search(said):
            cure = f"raise engine.{share} or lower training.max_response_tokens"
        elif isinstance(error, MemoryError) or _MEMORY_FULL.search(said):
            cure = f"lower engine.{share}, engine.max_sequences or training.max_response_tokens"
        else:
            raise
        why = re.split(r"(?<=\.)\s", said)[0] or type(error).__name__
        raise EngineMemoryError(
            f"the engine ran out of memory when it {doing}: {cure} ({' '.join(why.split())})"
        ) from error
