"""On a GPU: tokens/s, model FLOP utilization and peak memory of updates and of scoring.

Qwen3 shapes with random weights, bf16-mixed, gradient checkpointing, uneven responses of at most T
tokens. MFU is the counted operations over seconds times the device's peak; what checkpointing
computes again is not counted. ``--quick`` runs a toy on whatever device there is.
"""

import gc
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import lightning as L
import ours
import torch
from counted import forward_flops, update_flops
from rich.table import Table
from transformers import PreTrainedModel
from workload import SHAPES, Workload, draw

from rlrt.config.memory import CONTEXT, GB, Demand, ModelSize, estimate, resolve_moments
from rlrt.credit.grpo import GRPO
from rlrt.training.performance import peak_flops

if TYPE_CHECKING:  # the GPU check measures by this part, where no picture is drawn
    from matplotlib.axes import Axes

TITLE = "Qwen3 shapes on a GPU"
GIB = 2**30
ROUNDS = 3


@dataclass(frozen=True)
class Point:
    """A shape, the most tokens of a response, and how many responses there are, in groups of 8."""

    shape: str
    tokens: int
    groups: int


POINTS = [
    Point(shape, tokens, groups)
    for shape in ("qwen3_0.6b", "qwen3_1.7b", "qwen3_4b")
    for tokens, groups in ((4096, 4), (16_384, 1))
]
QUICK = [Point("toy", 64, 2)]
BUDGET = 32_768  # tokens of a micro-batch


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per point; one that does not fit says so."""
    if not (quick or torch.cuda.is_available()):
        raise SystemExit("--gpu measures on a CUDA device and PyTorch finds none here")
    rows = []
    for point in QUICK if quick else POINTS:
        try:
            rows.append(row_of(point))
        except torch.OutOfMemoryError as error:
            rows.append({**vars(point), "note": str(error).splitlines()[0]})
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def row_of(point: Point) -> dict[str, Any]:
    """The point, and what is measured of it."""
    return {**vars(point), **measured(point.shape, draw(point.groups, 8, point.tokens))}


def measured(shape: str, load: Workload, last: L.Callback | None = None) -> dict[str, Any]:
    """Seconds of every round after the first, and what was counted.

    ``last`` looks at one more round, number ``ROUNDS + 1``, whose seconds do not count.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = SHAPES[shape].policy(device.type)
    policy.gradient_checkpointing_enable({"use_reentrant": False})
    budget = max(BUDGET, load.longest)
    tokens = min(budget, load.response_tokens + sum(map(len, load.prompts)))  # of a pass, at most
    demand = resolve_moments(demand_of(policy, tokens, load.longest), device_bytes())
    module = ours.module_of(policy, budget, moments=demand.moments)
    scoring, memory = Stage(), Stage()

    def scored(module: Any) -> Any:
        scoring.start()
        ours.score(module, load)
        scoring.stop()
        return ours.one_update(ours.rollouts_of(load), GRPO())(module)

    spent = ours.run(
        module,
        scored,
        "bf16-mixed",
        "gpu" if device.type == "cuda" else "cpu",
        memory.start,
        ROUNDS + 1 + bool(last),
        [last] if last else [],
    )
    memory.stop()
    peak = peak_flops(device, torch.bfloat16)
    rounds = slice(1, ROUNDS + 1)
    updates, scores = spent.updates_s[rounds], scoring.seconds[rounds]
    return {
        **load.described(),
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "token_budget": module.token_budget,
        "peak_tflops": peak / 1e12,
        "moments": demand.moments,
        "predicted_gib": predicted_gib(demand),
        "update": figures(updates, load, update_flops, policy, peak, memory.gib),
        "score": figures(scores, load, forward_flops, policy, peak, scoring.gib),
    }


def demand_of(policy: PreTrainedModel, tokens: int, longest: int, engine: bool = False) -> Demand:
    """What the memory table is asked: one card, bf16-mixed, passes of so many tokens."""
    return Demand(
        policy=ModelSize.from_config(policy.config),
        cards=1,
        hosts=1,
        gathers=True,
        low=True,
        moments="auto",
        token_budget=tokens,
        longest_sequence=longest,
        checkpointing=policy.is_gradient_checkpointing,
        engine=engine,
    )


def device_bytes() -> float:
    """Of the card; without one those of the smallest that the project is made for."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return 80.0 * GB


def predicted_gib(demand: Demand) -> float:
    """The memory table's peak of an update, without what is none of PyTorch's own memory."""
    return (sum(estimate(demand, device_bytes()).updating.values()) - CONTEXT) / GIB


class Stage:
    """Seconds and peak memory of a stage that comes several times."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gib = 0.0

    def start(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.began = ours.clock()

    def stop(self) -> None:
        self.seconds.append(ours.clock() - self.began)
        if torch.cuda.is_available():
            self.gib = max(self.gib, torch.cuda.max_memory_allocated() / GIB)


def figures(
    seconds: list[float], load: Workload, count: Any, policy: Any, peak: float, gib: float
) -> dict[str, Any]:
    """Of one stage; tokens are those of the responses."""
    flops, middle = count(policy, load.prompts, load.responses), median(seconds)
    return {
        "seconds": seconds,
        "tokens_per_s": load.response_tokens / middle,
        "mfu": flops / middle / peak,
        "peak_gib": gib,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """A line per shape, length and stage."""
    head = ("model", "T", "rollouts", "stage", "tokens/s", "MFU", "peak GiB")
    output = Table(*head, title=TITLE)
    for row in rows:
        if "note" in row:
            output.add_row(row["shape"], f"{row['tokens']:,}", "", row["note"])
            continue
        for stage in ("update", "score"):
            one = row[stage]
            speed = (f"{one['tokens_per_s']:,.0f}", f"{one['mfu']:.1%}", f"{one['peak_gib']:.1f}")
            place = (row["shape"], f"{row['tokens']:,}", str(row["rollouts"]), stage)
            output.add_row(*place, *speed)
    return output


def picture(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """MFU of the updates."""
    fit = [row for row in rows if "note" not in row]
    names = [f"{row['shape'].removeprefix('qwen3_')}\n{row['tokens'] // 1024}k" for row in fit]
    axes.bar(names, [100 * row["update"]["mfu"] for row in fit], color="#4477aa")
    axes.set_ylabel("MFU of updates, %")
