"""The journal of an evaluation: every response on the disk the moment that it has ended.

JSON Lines, only ever appended to; the arrays of a response are base64 of their little-endian bytes.
A process that dies leaves whole lines and at most a part of one, which is dropped when the journal is
read again.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from rlrt.batch import Response
from rlrt.errors import UserError
from rlrt.evaluation.questions import Key

FORMAT = 2
ARRAYS = {"ids": "<i4", "engine_logprobs": "<f4", "sampled": "|b1"}  # None: sampled is all


class Journal:
    """Responses by key, in the file ``path``; of the evaluation with this ``fingerprint`` alone.

    Reading does not create the file. Append within a ``with``; the folder is the caller's alone.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._head = {"journal": FORMAT, "fingerprint": fingerprint}
        self._file: BinaryIO | None = None

    def read(self) -> dict[Key, Response]:
        """What stands there. UserError where it is damaged or another evaluation's."""
        if not self.path.exists():
            return {}
        found = {}
        for number, line in enumerate(self._whole_lines()):
            try:
                entry = json.loads(line)
                if number:
                    key, response = _entry(entry)
                    found[key] = response
            except (ValueError, LookupError, TypeError, AssertionError) as error:
                raise UserError(
                    f"{self.path} is damaged in line {number + 1} ({type(error).__name__}): cut it "
                    "off before that line, and what stood behind is asked again"
                ) from error
            if not number and isinstance(entry, dict) and entry.get("journal") != FORMAT:
                raise UserError(
                    f"{self.path} is a journal of another format ({entry.get('journal')}, it must be "
                    f"{FORMAT}): finish it with the version that began it, or choose another out="
                )
            if not number and entry != self._head:
                raise UserError(
                    f"{self.path} is the journal of another evaluation: choose another out="
                )
        return found

    def append(self, key: Key, response: Response) -> None:
        """Write one response; it is the operating system's when this returns."""
        arrays = {name: _text(getattr(response, name), kind) for name, kind in ARRAYS.items()}
        self._write(key._asdict() | arrays | {"truncated": response.truncated})

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        kept = sum(map(len, self._whole_lines()))
        self._file.truncate(kept)
        if not kept:
            self._write(self._head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None, "append within a with"
        rest = memoryview(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        while rest:  # a disk that is nearly full takes a part first
            rest = rest[self._file.write(rest) :]

    def _whole_lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _entry(entry: dict[str, Any]) -> tuple[Key, Response]:
    key = Key(**{name: entry[name] for name in Key._fields})
    arrays: dict[str, Any] = {name: _array(entry[name], kind) for name, kind in ARRAYS.items()}
    return key, Response(**arrays, truncated=bool(entry["truncated"]))


def _text(values: NDArray[Any] | None, kind: str) -> str | None:
    return None if values is None else b64encode(values.astype(kind).tobytes()).decode()


def _array(text: Any, kind: str) -> NDArray[Any] | None:
    """ValueError or TypeError where the text holds no such array."""
    return None if text is None else np.frombuffer(b64decode(text, validate=True), kind)
