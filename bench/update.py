"""(a) One optimizer update beside TRL's GRPOTrainer: the same weights, rollouts, loss and token budget.

Neither side holds more than ``BUDGET_ROWS`` times the longest row of tokens at a time: ours packs to
that budget, TRL pads every row to the longest. The two take turns in one process.
"""

from dataclasses import asdict, dataclass
from typing import Any

import ours
import torch
from common import marked, ratio, ratio_bars
from matplotlib.axes import Axes
from rich.table import Table
from workload import SHAPES, Shape, Workload, draw

from rlrt.credit.grpo import GRPO

TITLE = "one update beside TRL"
BUDGET_ROWS = 8
ASKED = {0.0: 1.0, 0.5: 2.0}  # times TRL's throughput, by share of groups without a signal
ASKED_APART = 1e-5


@dataclass(frozen=True)
class Case:
    """A shape and the rollouts of its update."""

    shape: str
    groups: int
    limit: int  # response tokens
    zero_signal: float
    repeats: int


CASES = [Case("tiny", 16, 256, share, 9) for share in (0.0, 0.5)] + [
    Case("small", 8, 512, share, 7) for share in (0.0, 0.5)
]
QUICK = [Case("toy", 2, 48, share, 2) for share in (0.0, 0.5)]


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per case."""
    return [compare(case) for case in (QUICK if quick else CASES)]


def compare(case: Case) -> dict[str, Any]:
    """Seconds of every update on either side, and how far the gradients of the first are apart."""
    from trl_side import best_rows  # TRL is needed to measure, not to draw what was measured

    shape = SHAPES[case.shape]
    load = draw(case.groups, samples=8, limit=case.limit, zero_signal=case.zero_signal)
    budget = BUDGET_ROWS * load.longest
    theirs_apart = apart_at_start(shape, load, budget)
    trl, tried = best_rows(shape.policy, load, budget)
    module = ours.module_of(shape.policy(), budget)
    prepare = ours.one_update(ours.rollouts_of(load), GRPO())
    ours.run(module, prepare)  # warm-up
    seconds: dict[str, list[float]] = {"rlrt": [], "trl": [], "rlrt_scoring": []}
    for _ in range(case.repeats):
        spent = ours.run(module, prepare)
        seconds["rlrt"].append(spent.update_s)
        seconds["rlrt_scoring"].append(spent.score_s)
        seconds["trl"].append(trl.step())
    times, low, high = ratio(seconds["trl"], seconds["rlrt"])
    return {
        **asdict(case),
        **load.described(),
        "token_budget": budget,
        "trl_rows": trl.rows,
        "trl_rows_tried_s": tried,
        "seconds": seconds,
        "times_trl": times,
        "interval": [low, high],
        "gradient_apart": theirs_apart,
    }


def apart_at_start(shape: Shape, load: Workload, budget: int) -> float:
    """Distance of the two gradients at the same weights, as a share of the norm."""
    from trl_side import TrlSide, apart

    module = ours.module_of(shape.policy(), budget)
    ours.run(module, ours.one_update(ours.rollouts_of(load), GRPO()))
    rows = max(r for r in range(1, BUDGET_ROWS + 1) if len(load.responses) % r == 0)
    return apart(ours.gradients(module), TrlSide(shape.policy(), load, rows).gradients())


def table(rows: list[dict[str, Any]]) -> Table:
    """Response tokens of the update per second, skipped ones included: the same work on both sides."""
    output = Table(
        *("model", "rollouts", "tokens", "no signal", "rlrt tokens/s", "TRL tokens/s"),
        *("times TRL (95 %)", "gradients apart"),
        title=TITLE,
    )
    for row in rows:
        rlrt, trl = (
            row["response_tokens"] / float(torch.tensor(row["seconds"][side]).median())
            for side in ("rlrt", "trl")
        )
        low, high = row["interval"]
        enough = low > ASKED[row["zero_signal"]]
        output.add_row(
            row["shape"],
            str(row["rollouts"]),
            f"{row['response_tokens']:,}",
            f"{row['zero_signal']:.0%}",
            f"{rlrt:,.0f}",
            f"{trl:,.0f}",
            marked(f"{row['times_trl']:.2f} ({low:.2f}–{high:.2f})", enough),
            marked(f"{row['gradient_apart']:.0e}", row["gradient_apart"] < ASKED_APART),
        )
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Times TRL's throughput, with the interval."""
    ratio_bars(axes, rows, "times_trl", "times TRL's throughput")
