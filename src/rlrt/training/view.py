"""Watching a run: a live view on a terminal, one line per rollout step elsewhere."""

import time
from collections import deque

import lightning as L
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlrt.batch import Rollout, Verdict
from rlrt.training.rollouts import RolloutCallback

COLUMNS = {  # heading -> metric, format
    "reward": ("reward/mean", "{:.3f}"),
    "length": ("rollout/response_tokens_mean", "{:.1f}"),
    "entropy": ("rollout/engine_entropy", "{:.3f}"),
    "no signal": ("rollout/zero_signal_groups", "{:.0%}"),
    "multiplier": ("credit/multiplier_mean", "{:.3f}"),
    "loss": ("loss/total", "{:+.4f}"),
    "sync gap": ("sync/logprob_gap", "{:.1e}"),
    "tokens/s": ("rollout/tokens_per_s", "{:,.0f}"),
    "step s": ("time/step_s", "{:.2f}"),
}
STYLES = {Verdict.RIGHT: "green", Verdict.WRONG: "red", Verdict.UNDECIDED: "yellow"}
SHOWN_STEPS = 8
SHOWN_SAMPLES = 3
SHOWN_CHARACTERS = 160


class LiveView(L.Callback):
    """Shows the newest steps, held-out scores, and a sample of responses with their verdicts."""

    def __init__(self, rollouts: RolloutCallback, console: Console) -> None:
        self.rollouts = rollouts
        self.console = console
        self.steps: deque[tuple[int, dict[str, float]]] = deque(maxlen=SHOWN_STEPS)
        self.live: Live | None = None
        self.evaluations_printed = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.began, self.first_step = time.monotonic(), trainer.current_epoch
        self.evaluations_printed = len(self.rollouts.evaluations.rows)
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for row in self.rollouts.evaluations.rows[self.evaluations_printed :]:
            self.console.print(evaluation_line(row), highlight=False, soft_wrap=True)
        self.evaluations_printed = len(self.rollouts.evaluations.rows)
        self._refresh(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.steps.append((trainer.current_epoch, self.rollouts.row))
        if self.live is None:
            self.console.print(
                step_line(trainer.current_epoch, self.rollouts.row), highlight=False, soft_wrap=True
            )
        self._refresh(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _refresh(self, trainer: L.Trainer) -> None:
        if self.live is None:
            return
        done = self.steps[-1][0] + 1 if self.steps else trainer.current_epoch
        total = trainer.max_epochs or 0
        self.live.update(
            Group(
                self._progress(done, total),
                steps_table(self.steps),
                samples_panel(self.rollouts.current_rollouts),
            ),
            refresh=True,
        )

    def _progress(self, done: int, total: int) -> RenderableType:
        spent = time.monotonic() - self.began
        fresh = done - self.first_step
        left = f"{clock(spent / fresh * (total - done))} left" if fresh else "time left unknown yet"
        line = Table.grid(padding=(0, 2))
        line.add_row(
            f"rollout step {done}/{total}", ProgressBar(total, done, width=40), clock(spent), left
        )
        return line


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def step_line(step: int, row: dict[str, float]) -> str:
    """One plain line for logs."""
    parts = [
        f"{head} {form.format(row[name])}" for head, (name, form) in COLUMNS.items() if name in row
    ]
    return f"step {step}: " + ", ".join(parts)


def evaluation_line(row: dict[str, float]) -> str:
    """The scores of one evaluation."""
    scores = ", ".join(f"{name} {float(value):.3f}" for name, value in row.items() if "@" in name)
    return f"held out after {row['step']} rollout steps: {scores}"


def steps_table(steps: deque[tuple[int, dict[str, float]]]) -> Table:
    """The newest steps, one row each."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns
    table.add_column("step", justify="right")
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for step, row in steps:
        cells = [form.format(row[name]) if name in row else "" for name, form in COLUMNS.values()]
        table.add_row(str(step), *cells)
    return table


def samples_panel(rollouts: list[Rollout]) -> Panel:
    """A few responses with their verdicts; their text is shown as it is, never as markup."""
    text = Text()
    stride = max(len(rollouts) // SHOWN_SAMPLES, 1)
    for rollout in rollouts[::stride][:SHOWN_SAMPLES]:
        text.append(f"{rollout.verdict.value:>9} ", STYLES[rollout.verdict])
        text.append(f"{_one_line(rollout.problem.question)} ", "dim")
        text.append(_one_line(rollout.text) + "\n")
    return Panel(text, title="responses", title_align="left", height=SHOWN_SAMPLES * 2 + 2)


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * SHOWN_CHARACTERS])
    short = " ".join(printable.split())
    return short if len(short) <= SHOWN_CHARACTERS else short[: SHOWN_CHARACTERS - 1] + "…"
