"""Rows of problem tables, from a local file or a hub data set, and the texts in their columns."""

import csv
import gzip
import io
import itertools
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

SUFFIXES = (
    *(".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz"),
    *(".parquet", ".arrow"),
)
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
    """The path with ``~`` expanded. ValueError unless it is an existing file of a known kind, or a
    folder that ``Dataset.save_to_disk`` wrote; of several splits, the one named train.
    """
    file = Path(path).expanduser()
    if (file / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in file.iterdir() if _is_saved(folder))
        if len(splits) != 1 and "train" not in splits:
            raise ValueError(
                f"{setting} is {str(path)!r}, which holds {', '.join(splits) or 'no split'}; name "
                f"one: {setting}={file / (splits[0] if splits else '<split>')}"
            )
        file /= "train" if "train" in splits else splits[0]
    if _is_saved(file):
        return file
    if file.is_dir():
        raise ValueError(
            f"{setting} is {str(path)!r}, a folder; give one file in it, or a folder that "
            "Dataset.save_to_disk wrote"
        )
    if not file.exists():
        raise ValueError(f"{setting} is {str(path)!r}, which does not exist")
    if not file.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{setting} is {str(path)!r}; it must end in {', '.join(SUFFIXES)}")
    return file


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def read_file(path: Path) -> Iterator[Row]:
    """All rows of what ``check_file`` accepts; blank lines are no rows.

    JSON files hold one object per line, or one array of objects. A file that cannot be opened or is
    damaged as a whole raises one ValueError that names it.
    """
    name = path.name.lower().removesuffix(".gz")
    read = _json_rows
    if path.is_dir() or name.endswith((".parquet", ".arrow")):
        read = _table_rows
    elif name.endswith((".csv", ".tsv")):
        read = _csv_rows
    try:
        yield from read(path)
    except (OSError, EOFError, zlib.error, csv.Error) as error:
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


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows by the names in the first line; a row with more cells than names is a bad one."""
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    # bytes that are no UTF-8 become half surrogates, which no text may hold: one bad row, not no file
    with io.TextIOWrapper(_opened(path), "utf-8-sig", "surrogateescape", newline="") as text:
        for number, columns in enumerate(csv.DictReader(text, delimiter=delimiter), 1):
            extra = columns.pop(None, None)
            error = BadRow("too many cells", f"{len(extra)} beyond the names") if extra else None
            yield Row(f"{path}:{number}", {} if extra else columns, error)


def _array_rows(path: Path) -> Iterator[Row] | None:
    """Rows of a file that is one JSON array of objects, or a longer object around one; None of others."""
    with _opened(path) as file:
        parts = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        lines = (part.removeprefix(BOM).strip() for part in parts)
        first, has_more = next(filter(None, lines), b""), any(lines)
    # read whole only where the first line leaves something open: a file of lines may be of any size
    opens = first.endswith((b"{", b"[", b",")) or (
        first.startswith(b"[") and not (has_more and first.endswith(b"]"))
    )
    if not (first.startswith((b"[", b"{")) and opens):
        return None
    try:
        with _opened(path) as file:
            whole = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # its lines say what is wrong
    if isinstance(whole, dict):
        arrays = [value for value in whole.values() if isinstance(value, list) and value]
        arrays = [value for value in arrays if all(isinstance(item, dict) for item in value)]
        whole = arrays[0] if len(arrays) == 1 else [whole]
    return (
        Row(f"{path}:{number}", item)
        if isinstance(item, dict)
        else Row(f"{path}:{number}", error=BadRow("not an object", f"a {type(item).__name__}"))
        for number, item in enumerate(whole, 1)
    )


def _json_rows(path: Path) -> Iterator[Row]:
    if (rows := _array_rows(path)) is not None:
        yield from rows
        return
    with _opened(path) as file:
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


def _table_rows(path: Path) -> Iterator[Row]:
    """Rows of a parquet file, of an Arrow file or stream, or of a saved data set."""
    import pyarrow as pa

    kind = "a saved data set" if path.is_dir() else path.suffix.lower()[1:]
    try:
        rows = (columns for batch in _batches(path) for columns in batch.to_pylist())
        for number, columns in enumerate(rows, 1):
            yield Row(f"{path}:{number}", columns)
    except (pa.ArrowException, UnicodeDecodeError, ValueError, LookupError) as error:
        raise ValueError(f"{path} cannot be read as {kind}: {_first_line(error)}") from error


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        import datasets  # takes a second

        # row by row: it may hold a selection of the rows in its files
        yield from datasets.load_from_disk(str(path)).with_format("arrow").iter(1024)
    elif path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(batch_size=1024)
    else:
        with pa.memory_map(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)  # what the datasets library writes
            except pa.ArrowInvalid:
                file.seek(0)
                reader = pa.ipc.open_file(file)
                yield from map(reader.get_batch, range(reader.num_record_batches))
                return
            yield from reader


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a problem.

    A dot steps into a nested column (``reward_model.ground_truth``), a number into a list
    (``prompt.0.content``), both also where the column is JSON text; a column whose own name has dots
    is found first. A question may be a list of chat messages, the last of which asks. An answer may be
    a list of several, of which each is accepted, or a worked one that ends in "#### 12".
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
        answer, *others = answers_at(row, self.answer)
        question, preceding = question_at(row, self.question)
        return Problem(
            id=row_id(row, self.id),
            question=question,
            preceding=preceding,
            answer=answer,
            other_answers=tuple(others),
            source=source,
            solution=_optional_text(row, self.solution, "solution"),
            feedback=_optional_text(row, self.feedback, "feedback"),
        )


def require_columns(rows: Iterator[Row], columns: Columns, place: str) -> Iterator[Row]:
    """The same rows; ValueError where none of the first hundred has the question's or the answer's column.

    Wrong names are one mistake, not one in every row.
    """
    first = list(itertools.islice(rows, 100))
    sound = [row.columns for row in first if row.error is None]
    names = {"data.question_column": columns.question, "data.answer_column": columns.answer}
    missing = [
        f"{setting} is {name!r}"
        for setting, name in names.items()
        if all(value_at(row, name) is None for row in sound)
    ]
    if sound and missing:
        has = ", ".join(dict.fromkeys(str(name) for row in sound for name in row))
        raise ValueError(
            f"{' and '.join(missing)}, and no row of {place} has it; its columns are {has}: set "
            "data.question_column= and data.answer_column="
        )
    return itertools.chain(first, rows)


def value_at(columns: Mapping[str, Any], name: str) -> Any:
    """The value of a column by its name or dotted path; None where there is none."""
    if name in columns:
        return columns[name]
    value: Any = columns
    for step in name.split("."):
        value = _decoded(value)
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch(r"-?[0-9]+", step):
            value = next(iter(value[int(step) :]), None)
        else:
            return None
    return value


def _decoded(value: Any) -> Any:
    """What JSON text stands for, where it is an object or a list; else the value."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _present(row: Row, name: str, field_name: str) -> Any:
    value = value_at(row.columns, name)
    if value is None:
        has = ", ".join(map(str, row.columns))
        raise BadRow(f"no {field_name}", f"nothing in column {name!r}; the row has: {has}")
    return value


def text_at(row: Row, name: str, field_name: str) -> str:
    """The text in a column. BadRow ("no question", "answer not text", …) says what is wrong."""
    return plain_text(_present(row, name, field_name), field_name)


def question_at(row: Row, name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The question in a column, and the chat messages before it as (role, content).

    The question is the column's text, or the last of the messages there, which must be the user's.
    """
    value = _present(row, name, "question")
    messages = _decoded(value)
    if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
        return plain_text(value, "question"), ()
    *before, last = [
        (plain_text(one["role"], "role"), plain_text(one["content"], "question"))
        for one in messages
    ]
    if last[0] != "user":
        raise BadRow("question not the user's", f"the last message is of {last[0]}")
    return last[1], tuple(before)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def answers_at(row: Row, name: str) -> list[str]:
    """The accepted answers in a column, at least one, each once; of a worked one what follows ####."""
    value = _present(row, name, "answer")
    values = value if isinstance(value, list) and len(value) > 1 else [value]
    answers = [plain_text(one, "answer") for one in values]
    finals = [text.rpartition("####")[2].strip() for text in answers]
    if not all(finals):
        raise BadRow("no answer", "nothing after ####")
    return list(dict.fromkeys(finals))


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
