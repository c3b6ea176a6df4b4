"""Rows of problem tables, from a local file or a hub data set, and the texts in their columns."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from rlrt.batch import Problem
from rlrt.hub import cache_only, does_answer, find_commit, is_local

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
# Longer than any real problem by far; without a limit one broken line could fill the memory.
MAX_LINE_BYTES = 16 * 2**20
BOM = b"\xef\xbb\xbf"
ADVICE = (
    "check data.name, the config, the split and the network, or read a local copy through data.path"
)
_UNFIT = re.compile("[\0\ud800-\udfff]")


class BadRow(ValueError):
    """A row that holds no problem. Rows are counted by ``reason``; ``detail`` helps to mend one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Row:
    """One row: ``place`` is "file:line" or "data set/split:row", counted from 1.

    ``error`` is set, and ``columns`` empty, where the row could not be read at all.
    """

    place: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    error: BadRow | None = None


def check_file(path: str | Path, setting: str) -> Path:
    """The path with ``~`` expanded. ValueError unless it is an existing file of a known kind."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(f"{setting} is {str(path)!r}, a folder; give one file in it")
    if not file.exists():
        raise ValueError(f"{setting} is {str(path)!r}, which does not exist")
    if not file.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{setting} is {str(path)!r}; it must end in {', '.join(SUFFIXES)}")
    return file


def read_file(path: Path) -> Iterator[Row]:
    """All rows of a file that ``check_file`` accepts; blank lines are no rows.

    JSON files hold one object per line. A file that cannot be opened or is damaged as a whole
    raises one ValueError that names it.
    """
    read = _parquet_rows if path.name.lower().endswith(".parquet") else _json_rows
    try:
        yield from read(path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {_first_line(error)}") from error


class UnreachableError(ValueError):
    """A data set of the hub is neither there nor in the local cache, or it is another than expected."""


def read_hub(
    name: str, config: str | None, split: str, advice: str = ADVICE, revision: str | None = None
) -> Iterator[Row]:
    """All rows of one split of a hub data set, from the local cache where it holds them.

    ``revision`` is a branch, a tag or a commit, None the main branch; what the cache holds of another
    commit is not taken for it. Whatever keeps it from loading (no network, no such name, config or
    split) becomes one UnreachableError that names the three settings and ends with ``advice``.
    """
    from datasets.exceptions import DatasetsError  # takes a second, and local files do not need it

    local = is_local(name)
    commit = None if local else find_commit(name, "dataset", revision, "data.revision")
    try:
        table = None if local else _load_from_cache(name, config, split, commit)
        if table is None:
            # without an answer the library would try each file again for half a minute, aloud
            reachable = local or commit is not None or does_answer(name, "dataset")
            with nullcontext() if reachable else cache_only():
                table = _load(name, config, split, commit)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UnreachableError(
            f"the data set {name!r} (config {config!r}, split {split!r}) could not be loaded: "
            f"{_first_line(error)}; {advice}"
        ) from error
    for number, columns in enumerate(table, 1):
        yield Row(f"{name}/{split}:{number}", columns)


def _load_from_cache(name: str, config: str | None, split: str, commit: str | None) -> Any:
    """The split from the cache alone; None where it does not hold it.

    First, since without a network the library tries each file for half a minute.
    """
    try:
        with cache_only():
            return _load(name, config, split, commit)
    except Exception:  # the attempt with the network says what is wrong
        return None


def _load(name: str, config: str | None, split: str, commit: str | None) -> Any:
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=commit)
    if commit is not None and builder.hash != commit:  # where it has none, it takes any
        raise ValueError(f"the hub cannot be asked, and the local cache lacks commit {commit}")
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _json_rows(path: Path) -> Iterator[Row]:
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if number == 1 and line is not None:
                line = line.removeprefix(BOM)
            if line is None or line.strip():
                yield _json_row(f"{path}:{number}", line)


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
    """Lines without holding an over-long one: it comes back as None.

    Only a newline ends a line. Iterating decoded text would be the same here, but one invalid byte
    would then take the whole file down.
    """
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _json_row(place: str, line: bytes | None) -> Row:
    if line is None:
        return Row(place, error=BadRow("line too long", f"over {MAX_LINE_BYTES} bytes"))
    try:
        columns = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(place, error=BadRow("not UTF-8", f"byte {error.start} of the line"))
    except ValueError as error:
        return Row(place, error=BadRow("not JSON", str(error)))
    except RecursionError:
        return Row(place, error=BadRow("not JSON", "nested too deeply"))
    if not isinstance(columns, dict):
        return Row(place, error=BadRow("not an object", f"a {type(columns).__name__}"))
    return Row(place, columns)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            batches = table.iter_batches(batch_size=1024)
            rows = (columns for batch in batches for columns in batch.to_pylist())
            for number, columns in enumerate(rows, 1):
                yield Row(f"{path}:{number}", columns)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a problem.

    A dot steps into a nested column (``reward_model.ground_truth``), a number into a list
    (``prompt.0.content``); a column whose own name has dots is found first.
    """

    question: str = "problem"
    answer: str = "answer"
    id: str | None = "id"
    solution: str | None = None
    feedback: str | None = None

    def problem(self, row: Row, source: str) -> Problem:
        """The row as a problem (its id: ``row_id``).

        BadRow where question or answer are missing, or one of the fields is not text.
        """
        return Problem(
            id=row_id(row, self.id),
            question=text_at(row, self.question, "question"),
            answer=text_at(row, self.answer, "answer"),
            source=source,
            solution=_optional_text(row, self.solution, "solution"),
            feedback=_optional_text(row, self.feedback, "feedback"),
        )


def value_at(columns: Mapping[str, Any], name: str) -> Any:
    """The value of a column by its name or dotted path; None where there is none."""
    if name in columns:
        return columns[name]
    value: Any = columns
    for step in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch(r"-?[0-9]+", step):
            value = next(iter(value[int(step) :]), None)
        else:
            return None
    return value


def text_at(row: Row, name: str, field_name: str) -> str:
    """The text in a column. BadRow ("no question", "answer not text", …) says what is wrong."""
    value = value_at(row.columns, name)
    if value is None:
        has = ", ".join(map(str, row.columns))
        raise BadRow(f"no {field_name}", f"nothing in column {name!r}; the row has: {has}")
    return plain_text(value, field_name)


def _optional_text(row: Row, name: str | None, field_name: str) -> str | None:
    value = None if name is None else value_at(row.columns, name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return plain_text(value, field_name)


def row_id(row: Row, name: str | None) -> str:
    """The row's own id where it has one, else the end of its place ("train.jsonl:12")."""
    own = None if name is None else value_at(row.columns, name)
    return row.place.rsplit("/", 1)[-1] if own in (None, "") else plain_text(own, "id")


def plain_text(value: Any, field_name: str) -> str:
    """The value as stripped text: 42 and 42.0 give "42", a list of one gives its item.

    BadRow for booleans, other lists, objects, infinities, and text that cannot travel on: null
    bytes end strings in C libraries, and lone surrogates cannot be written as UTF-8.
    """
    if isinstance(value, list) and len(value) == 1:
        return plain_text(value[0], field_name)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _number(value, field_name)
    if not isinstance(value, str):
        raise BadRow(f"{field_name} not text", f"found {type(value).__name__}")
    text = value.strip()
    if not text:
        raise BadRow(f"no {field_name}", "empty text")
    if _UNFIT.search(text):
        raise BadRow(f"{field_name} not text", "a null byte or half a surrogate pair in it")
    return text


def _number(value: int | float | Decimal, field_name: str) -> str:
    if not math.isfinite(value):
        raise BadRow(f"{field_name} not text", f"found {value}")
    if value == int(value):
        return str(int(value))
    return f"{Decimal(str(value)):f}"  # never 1e-07, which no verifier is bound to read
