"""How far an evaluation is, on the screen."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlrt.batch import Response
from rlrt.config.commands import console, say


class Counted:
    """Counts responses as they end: a bar on a terminal, and one line at the end."""

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._responses = self._tokens = 0
        self._began: float | None = None
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[tokens]} tokens"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, tokens=0)

    def begin(self) -> None:
        """Sampling begins; what came before does not count."""
        self._began = time.perf_counter()
        self._bar.start()

    def one(self, response: Response) -> None:
        """One more has ended."""
        self._responses += 1
        self._tokens += len(response.ids)
        self._bar.update(self._task, completed=self._responses, tokens=self._tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._began is None or error is not None:
            return
        seconds = time.perf_counter() - self._began
        say(
            f"{self._name}: {self._responses} responses and their verdicts in {seconds:.1f} s, "
            f"{self._tokens / seconds:.0f} tokens/s"
        )
