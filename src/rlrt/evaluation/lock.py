"""A folder for one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlrt.errors import UserError

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep all other processes that ask for it out of the folder, which is made where there is none.

    Afterwards it is gone again where nothing was written to it. UserError where another process is at
    it, or where nothing can be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        _remove_empty(made)
        raise UserError(f"{folder} cannot be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process at the latest
            free = os.fstat(file.fileno()).st_nlink > 0  # else its owner has just taken it away
        except BlockingIOError:
            free = False
        if not free:
            raise UserError(
                f"{folder} is being written by another process: wait until that has ended, or choose "
                "another out="
            )
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            _remove_empty(made)


def leftover(path: Path) -> bool:
    """Whether the file is what a killed process leaves of the ways in which files are written here."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".partial"))


def _remove_empty(folders: list[Path]) -> None:
    """Inner ones come first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
