"""Table 1 of the paper: avg@16 and pass@16 in per cent (arXiv:2605.10781, Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlrt.data.benchmarks import PAPER_BENCHMARKS

TABLE = """
4B-Base | start                | 9.6/33.3  | 6.9/30.0  | 6.5/16.7  | 3.6/24.2  | 43.3/90.0 | 66.8/92.2
4B-Base | GRPO                 | 15.0/40.0 | 14.4/33.3 | 12.3/36.7 | 10.0/27.3 | 58.3/87.5 | 80.2/94.2
4B-Base | RLSD                 | 13.3/40.0 | 11.2/33.3 | 9.0/26.7  | 6.2/27.3  | 55.2/82.5 | 77.9/91.2
4B-Base | RLRT                 | 22.5/50.0 | 18.5/36.7 | 19.8/40.0 | 15.9/33.3 | 63.9/95.0 | 83.8/94.2
8B-Base | start                | 10.4/33.3 | 10.2/30.3 | 9.8/30.0  | 5.3/30.3  | 56.3/85.0 | 74.4/93.0
8B-Base | GRPO                 | 19.8/40.0 | 17.5/36.7 | 16.5/36.7 | 11.0/33.3 | 62.5/90.0 | 83.6/95.4
8B-Base | RLSD                 | 17.3/40.0 | 15.0/33.3 | 13.5/36.7 | 8.1/27.3  | 64.2/87.5 | 80.9/92.4
8B-Base | RLRT                 | 27.9/63.3 | 18.8/50.0 | 21.9/53.3 | 15.9/33.3 | 67.3/97.5 | 84.4/95.6
8B      | start (thinking off) | 25.2/63.3 | 20.0/43.3 | 15.4/50.0 | 20.3/33.3 | 67.0/95.0 | 83.7/95.8
8B      | GRPO                 | 70.2/86.7 | 59.4/83.3 | 62.9/86.7 | 41.7/66.7 | 93.6/100  | 94.8/98.2
8B      | SDPO                 | 26.9/63.3 | 22.3/40.0 | 14.4/36.7 | 18.6/30.3 | 72.8/95.0 | 82.2/94.4
8B      | SRPO                 | 15.4/26.7 | 9.8/26.7  | 8.3/26.7  | 9.7/21.2  | 49.2/77.5 | 75.0/90.2
8B      | RLSD                 | 65.4/83.3 | 57.9/83.3 | 57.7/83.3 | 39.2/51.5 | 93.6/100  | 93.1/98.2
8B      | RLRT                 | 70.6/93.3 | 62.9/86.7 | 65.0/86.7 | 43.2/69.7 | 95.5/100  | 94.9/98.2
"""
MODELS = {"qwen3_4b_base": "4B-Base", "qwen3_8b_base": "8B-Base", "qwen3_8b": "8B"}
METHODS = {
    None: "start",
    "rlrt.credit.grpo.GRPO": "GRPO",
    "rlrt.credit.sdpo.SDPO": "SDPO",
    "rlrt.credit.srpo.SRPO": "SRPO",
    "rlrt.credit.rlsd.RLSD": "RLSD",
    "rlrt.credit.rlrt.RLRT": "RLRT",
}


@dataclass(frozen=True)
class PaperCell:
    """Two shares of 1."""

    average: float  # avg@16
    solved: float  # pass@16


@dataclass(frozen=True)
class PaperRow:
    """A row of the table; ``cells`` by the names of the six benchmarks."""

    model: str
    method: str
    cells: Mapping[str, PaperCell]

    def mean(self, benchmarks: tuple[str, ...]) -> PaperCell | None:
        """Over these benchmarks; None where the row lacks one of them."""
        if not self.cells.keys() >= set(benchmarks):
            return None
        cells = [self.cells[name] for name in benchmarks]
        return PaperCell(
            sum(cell.average for cell in cells) / len(cells),
            sum(cell.solved for cell in cells) / len(cells),
        )


def _read(line: str) -> PaperRow:
    model, method, *cells = (word.strip() for word in line.split("|"))
    numbers = [[round(float(word) / 100, 3) for word in cell.split("/")] for cell in cells]
    return PaperRow(
        model,
        method,
        {name: PaperCell(*two) for name, two in zip(PAPER_BENCHMARKS, numbers, strict=True)},
    )


ROWS = tuple(_read(line) for line in TABLE.strip().splitlines())


def paper_row(model_preset: str | None, credit_target: str | None) -> PaperRow | None:
    """The row of a model preset trained by a credit assigner (its import path); None: no such row.

    Without a credit it is the model that training starts from: for ``qwen3_8b`` the paper asked it
    with thinking off.
    """
    if model_preset not in MODELS or credit_target not in METHODS:
        return None
    model, method = MODELS[model_preset], METHODS[credit_target]
    return next(
        (row for row in ROWS if row.model == model and row.method.split(" ")[0] == method), None
    )
