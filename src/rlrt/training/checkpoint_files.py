"""A checkpoint on the disk, a file or a folder of shards: whole or not there, whenever the process dies."""

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException

from rlrt.errors import RunStoppedError
from rlrt.files import put_in_place, remove, write_atomically

SUFFIX = ".ckpt"
MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 22
WRITER = "inline_container"  # what PyTorch's writer names in its errors, whatever the system said

Sums = dict[str, list[int]]  # of each file by its name: size in bytes and CRC-32


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is what was written.

    Of a file, by the checksums of its zip records; of a folder, by its manifest.
    """
    try:
        if path.is_dir():
            manifest = json.loads((path / MANIFEST).read_text())
            files = [file for file in path.iterdir() if file.name != MANIFEST]
            sizes = {file.name: file.stat().st_size for file in files}
            if sizes != {name: size for name, (size, _) in manifest.items()}:
                return False
            return sums(files) == manifest
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False
    except (ValueError, TypeError, AttributeError):  # a manifest that is none
        return False


def sums(files: Iterable[Path]) -> Sums:
    """Size and checksum of each file, read several at a time."""

    def read(path: Path) -> tuple[str, list[int]]:
        size = check = 0
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                size += len(block)
                check = zlib.crc32(block, check)
        return path.name, [size, check]

    with ThreadPoolExecutor() as threads:
        return dict(threads.map(read, files))


def write_manifest(folder: Path, written: Mapping[str, list[int]]) -> None:
    """Seal a folder of shards: from now on it counts as whole, once it has its name."""

    def write(partial: Path) -> None:
        partial.write_text(json.dumps(dict(sorted(written.items())), indent=1))

    write_atomically(folder / MANIFEST, write)


def link(target: Path, name: Path) -> None:
    """Make ``name`` a second name of the files of ``target``, which lives on when that is removed."""
    partial = name.with_name(f".{name.name}.partial")
    remove(partial)
    if target.is_dir():
        partial.mkdir()
        for file in target.iterdir():
            os.link(file, partial / file.name)
    else:
        os.link(target, partial)
    put_in_place(partial, name)


def is_linked(one: Path, other: Path) -> bool:
    """Whether two checkpoints are names of the same files."""
    mine, theirs = (path / MANIFEST if path.is_dir() else path for path in (one, other))
    return mine.exists() and theirs.exists() and mine.samefile(theirs)


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """PyTorch's writer hides why it failed: say it. OSError where the system said no, and it is known;
    else RunStoppedError.
    """
    try:
        yield
    except CheckpointException as failed:  # of any rank, told to all of them; no Exception
        error = next(error for error, _ in failed.failures.values())
        raise _plain(error, path) from None
    except RuntimeError as error:
        raise _plain(error, path) from None


def _plain(error: BaseException, path: Path) -> BaseException:
    if not isinstance(error, RuntimeError) or WRITER not in str(error):
        return error
    if isinstance(error.__context__, OSError):
        return error.__context__
    return RunStoppedError(f"{path} could not be written: the disk is full, or it fails")
