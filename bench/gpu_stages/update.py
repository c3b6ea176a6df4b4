"""Stage 5: one update of a Qwen3-4B over 16k tokens: speed, memory, and where the time goes."""

from typing import Any

import gpu
import lightning as L
from gpu_stages.stage import Check
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from workload import draw

TOKENS = 16_384
SHORT = 32  # of the other response: a group of one would have no signal
TOP = 15  # kernels
# The peak beside the memory table's. The table rather says too much; too little is what hurts.
MOST_ABOVE, MOST_BELOW = 0.05, 0.30


def run(check: Check) -> None:
    """Two responses, one of them nearly all of the tokens."""
    shape, tokens = ("qwen3_4b", TOKENS) if check.card else ("toy", 128)
    load = draw(1, 2, tokens, lengths=[tokens - SHORT, SHORT])
    check.doing("updates")
    kernels = TopKernels(gpu.ROUNDS + 1, check.card)
    row = gpu.measured(shape, load, kernels)
    predicted = row["predicted_gib"]
    check.note(**row, kernels=kernels.found)
    for stage in ("update", "score"):
        one = row[stage]
        check.tell(
            f"{stage}: {one['tokens_per_s']:,.0f} tokens/s, MFU {one['mfu']:.1%}, peak "
            f"{one['peak_gib']:.1f} GiB"
        )
    check.tell(f"memory table: {predicted:.1f} GiB, AdamW's moments on the {row['moments']}")
    if check.card:
        low, high = ((1 + share) * predicted for share in (-MOST_BELOW, MOST_ABOVE))
        check.between("peak_gib", row["update"]["peak_gib"], low, high)
    for kernel in kernels.found[:3]:
        check.tell(f"{kernel['share']:.0%} {kernel['name'][:60]}")
    check.expect(bool(kernels.found), "the profiler saw no kernel")


class TopKernels(L.Callback):
    """The kernels (on the CPU: operations) that take most of an update, by their own time."""

    def __init__(self, round_: int, card: bool) -> None:
        self.round = round_
        self.card = card
        self.found: list[dict[str, Any]] = []
        activity = ProfilerActivity.CUDA if card else ProfilerActivity.CPU
        self.profile = profile(activities=[activity])

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.round:
            self.profile.start()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch != self.round:
            return
        self.profile.stop()
        where = DeviceType.CUDA if self.card else DeviceType.CPU
        spent = [
            (event.self_device_time_total if self.card else event.self_cpu_time_total, event)
            for event in self.profile.key_averages()
            if event.device_type == where and not event.is_user_annotation
        ]
        total = sum(micros for micros, _ in spent) or 1.0
        self.found = [
            {
                "name": event.key[:160],
                "ms": micros / 1000,
                "share": micros / total,
                "calls": event.count,
            }
            for micros, event in sorted(spent, key=lambda pair: -pair[0])[:TOP]
        ]
