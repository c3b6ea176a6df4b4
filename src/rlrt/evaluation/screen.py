"""The tables of an evaluation on the screen, as wide as that is.

Lines of a cell stand beside each other where there is room for it. Names give way first: they go on
in a further line, after a slash, an underscore or a hyphen, and what is still too long loses its
middle. Where the numbers alone are too wide, their columns are shared out among several tables.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rlrt.evaluation.summary import Summary
from rlrt.evaluation.tables import TableData, notes, printable, tables_of

LEAST_NAME = 14  # characters of a column of names
PIECE = re.compile(r"[^/_\- ]*[/_\- ]?")
Columns = list[list[list[str]]]  # lines of every cell, heading first


def screen(summary: Summary, width: int) -> list[RenderableType]:
    """For a console of so many characters; narrower than about 60 they are cut off."""
    parts: list[RenderableType] = []
    for table in tables_of(summary):
        parts.append(Text(f"\n{printable(table.title)}", style="bold"))
        parts += [_table(columns, table.names) for columns in _laid_out(table, width)]
    return [*parts, *(Text(printable(note)) for note in notes(summary))]


def _laid_out(table: TableData, width: int) -> list[Columns]:
    """The columns of one table, or of the fewest with the same names that fit."""
    stacked = _columns(table)
    beside = [[[" ".join(cell)] for cell in column] for column in stacked]
    if _width(beside) <= width:
        return [beside]
    for tables in range(1, len(stacked) - table.names + 1):
        for columns in (beside, stacked) if tables > 1 else (stacked,):
            names, parts = columns[: table.names], _shared_out(columns[table.names :], tables)
            width_left = min(width - _width(part) for part in parts) - 2 * len(names)
            if width_left >= LEAST_NAME * len(names):
                break
        else:
            continue
        break
    narrow = _narrowed(names, width_left)
    return [[*narrow, *part] for part in parts]


def _columns(table: TableData) -> Columns:
    return [
        [[printable(line) for line in cell.split("\n")] for cell in cells]
        for cells in zip(table.headings, *table.rows, strict=True)
    ]


def _shared_out(numbers: Columns, tables: int) -> list[Columns]:
    """The columns divided among so many tables, nearly equally many for each."""
    ends = [round(len(numbers) * table / tables) for table in range(tables + 1)]
    return [numbers[start:end] for start, end in pairwise(ends)]


def _width(columns: Columns) -> int:
    """Characters of the table: rich puts a space to the right of every column and a border beside it."""
    return sum(_longest(column) + 2 for column in columns) + 1


def _longest(column: Sequence[Sequence[str]]) -> int:
    return max(cell_len(line) for cell in column for line in cell)


def _narrowed(names: Columns, width_left: int) -> Columns:
    """Columns of names that take ``width_left`` characters together: the widest give way first."""
    widths = [_longest(column) for column in names]
    while sum(widths) > width_left and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return [
        [[part for line in cell for part in folded(line, width)] for cell in column]
        for column, width in zip(names, widths, strict=True)
    ]


def folded(name: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken where the name has a joint."""
    lines = [""]
    for piece in PIECE.findall(name):
        if cell_len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(_without_middle(piece, width))
    return [line.rstrip() for line in lines if line.strip()] or [""]


def _without_middle(text: str, width: int) -> str:
    head, tail = text, ""
    if cell_len(text.rstrip()) <= width:
        return text
    half = len(text) // 2
    head, tail = text[:half], text[half:]
    while cell_len(head + "…" + tail) > width and (head or tail):
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return head + "…" + tail


def _table(columns: Columns, names: int) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for number, (heading, *_) in enumerate(columns):
        justify: JustifyMethod = "left" if number < names else "right"
        table.add_column(Text("\n".join(heading)), justify=justify, no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*(Text("\n".join(cell)) for cell in row))
    return table
