"""(b) What RLRT costs over GRPO on the same rollouts, beside its floor from counted operations.

A rollout step's scoring and update are timed for both, taking turns. The floor is a forward of every
gated rollout given the teacher's longer prompt and one given the plain prompt before the update, at
the seconds per FLOP that GRPO's update needs in the same run.
"""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import ours
from common import interval, marked, ratio_bars
from counted import forward_flops, update_flops
from matplotlib.axes import Axes
from rich.table import Table
from transformers import PreTrainedModel
from workload import SHAPES, Workload, draw

from rlrt.credit.grpo import GRPO
from rlrt.credit.rlrt import RLRT

TITLE = "RLRT over GRPO, beside the counted floor"
BUDGET_ROWS = 8
ASKED = 1.15  # of the floor


@dataclass(frozen=True)
class Case:
    """A shape and the rollouts of its step."""

    shape: str
    groups: int
    limit: int  # response tokens
    zero_signal: float
    repeats: int


CASES = [Case("small", 8, 512, share, 9) for share in (0.0, 0.5)]
QUICK = [Case("toy", 2, 48, 0.5, 2)]


@dataclass(frozen=True)
class Turn:
    """Seconds of one round: scoring and update of either method, and GRPO's update alone."""

    grpo_s: float
    rlrt_s: float
    grpo_update_s: float


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per case."""
    return [compare(case) for case in (QUICK if quick else CASES)]


def compare(case: Case) -> dict[str, Any]:
    """Extra seconds of every round, and the floor that stands beside them."""
    load = draw(case.groups, samples=8, limit=case.limit, zero_signal=case.zero_signal)
    rollouts = ours.rollouts_of(load)
    budget = BUDGET_ROWS * load.longest
    modules = [ours.module_of(SHAPES[case.shape].policy(), budget) for _ in range(2)]
    prepares = [ours.one_update(rollouts, credit) for credit in (GRPO(), RLRT())]
    for module, prepare in zip(modules, prepares, strict=True):
        ours.run(module, prepare)  # warm-up
    turns = []
    for _ in range(case.repeats):
        grpo, rlrt = (ours.run(*pair) for pair in zip(modules, prepares, strict=True))
        turns.append(
            Turn(grpo.score_s + grpo.update_s, rlrt.score_s + rlrt.update_s, grpo.update_s)
        )
    extra, update = counted(modules[0].policy, load)

    def over_floor(chosen: Any) -> float:
        seconds_per_flop = median(turn.grpo_update_s for turn in chosen) / update
        return median(turn.rlrt_s - turn.grpo_s for turn in chosen) / (extra * seconds_per_flop)

    share, low, high = interval(turns, over_floor)
    return {
        **asdict(case),
        **load.described(),
        "turns": [asdict(turn) for turn in turns],
        "floor_flops": extra,
        "grpo_update_flops": update,
        "over_floor": share,
        "interval": [low, high],
    }


def counted(policy: PreTrainedModel, load: Workload) -> tuple[float, float]:
    """FLOPs that RLRT must do on top, and those of GRPO's update."""
    rollouts = ours.rollouts_of(load)
    teacher_prompts = ours.teacher_prompts(rollouts, RLRT())
    gated = [(row, prompt) for row, prompt in enumerate(teacher_prompts) if prompt is not None]
    responses = [load.responses[row] for row, _ in gated]
    extra = forward_flops(policy, [prompt for _, prompt in gated], responses)
    extra += forward_flops(policy, [load.prompts[row] for row, _ in gated], responses)
    active = load.with_signal
    update = update_flops(
        policy, [load.prompts[row] for row in active], [load.responses[row] for row in active]
    )
    return extra, update


def table(rows: list[dict[str, Any]]) -> Table:
    """Medians of the rounds."""
    output = Table(
        *("model", "rollouts", "no signal", "GRPO s", "RLRT s", "extra s", "floor s"),
        "extra over floor (95 %)",
        title=TITLE,
    )
    for row in rows:
        grpo, rlrt, update = (
            median(turn[name] for turn in row["turns"])
            for name in ("grpo_s", "rlrt_s", "grpo_update_s")
        )
        extra = median(turn["rlrt_s"] - turn["grpo_s"] for turn in row["turns"])
        floor = row["floor_flops"] * update / row["grpo_update_flops"]
        low, high = row["interval"]
        output.add_row(
            row["shape"],
            str(row["rollouts"]),
            f"{row['zero_signal']:.0%}",
            *(f"{seconds:.2f}" for seconds in (grpo, rlrt, extra, floor)),
            marked(f"{row['over_floor']:.2f} ({low:.2f}–{high:.2f})", row["over_floor"] <= ASKED),
        )
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Extra seconds over the floor's."""
    ratio_bars(axes, rows, "over_floor", "extra seconds / floor")
    axes.axhline(ASKED, color="black", linewidth=0.8, linestyle=":")
