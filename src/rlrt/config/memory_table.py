"""The memory estimate as a table: a column for every kind of cards."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rlrt.config.memory import GB, Demand, Estimate, estimate


def memory_table(columns: Sequence[tuple[Demand, float]], title: str) -> Table:
    """Rows of every estimate in GB; each column is a run and the bytes of one of its cards."""
    found = [estimate(demand, card) for demand, card in columns]
    table = Table(title=f"{title}, GB = 1e9 bytes on each card, estimated", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for demand, card in columns:
        table.add_column(f"{demand.cards} x {card / GB:.0f} GB", justify="right", no_wrap=True)
    where = ["host" if demand.on_host else "device" for demand, _ in columns]
    table.add_row("AdamW's moments on the", *where)
    _section(table, "in an update", [one.updating for one in found])
    _section(table, "while the engine samples", [one.sampling for one in found])
    if any(one.engine_share for one in found):
        table.add_row("left for its cache", *(_gb(one.left) for one in found))
        table.add_row("  in tokens", *(f"{one.cached_tokens:,}" for one in found))
        longest = [f"{demand.longest_sequence:,}" for demand, _ in columns]
        table.add_row("  at least one sequence of", *longest)
        table.add_row("engine's share of a card", *(_share(one) for one in found))
    table.add_row("on each host, page-locked", *(_gb(one.on_host) for one in found))
    table.add_row("fits", *("yes" if one.fits else "no" for one in found), style="bold")
    return table


def _section(table: Table, name: str, parts: Sequence[dict[str, float]]) -> None:
    table.add_row(name, *(_gb(sum(part.values())) for part in parts), style="bold")
    for row in parts[0]:
        if any(part[row] for part in parts):
            table.add_row(f"  {row}", *(_gb(part[row]) for part in parts))


def _gb(count: float) -> str:
    return f"{count / GB:.1f}" if count else "–"


def _share(one: Estimate) -> str:
    return f"{max(one.engine_share, 0):.0%}"
