"""The parent's side of the worker processes: started when needed, ended and replaced on a limit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import NamedTuple

from rlrt.errors import RunStoppedError
from rlrt.reward.worker import READY

START_S = 120.0  # imports from a cold disk are slow
STARTS = 3  # attempts
GRACE_S = 2.0  # a worker ends at its own limit; the parent's is for one that was stopped


class Task(NamedTuple):
    """One question to a worker."""

    answer: str
    gold: str
    free_text: bool


class Reply(NamedTuple):
    """A worker's outcome, and the seconds that it took (starting a process is not counted).

    The outcome is "right", "wrong", "undecided" (a limit was hit) or "failed" (the comparison raised
    an error).
    """

    outcome: str
    seconds: float


class Process:
    """A running worker. RunStoppedError if it does not come up."""

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        self._socket, theirs = socket.socketpair()
        # A fresh interpreter and not multiprocessing: fork would copy the parent's threads; spawn
        # and forkserver would import the parent's main module, torch and all, in every worker.
        # -P: no file of the working directory stands in for a library.
        module = [sys.executable, "-P", "-m", "rlrt.reward.worker"]
        with theirs:
            self._process = subprocess.Popen(
                [*module, str(theirs.fileno()), str(timeout_s), str(memory_bytes)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONHASHSEED": "0"},  # the same verdicts in every run
                process_group=0,  # Ctrl-C is for the parent, whose end is the worker's too
            )
        self._channel = self._socket.makefile("rw", encoding="ascii", newline="\n")
        self._socket.settimeout(START_S)
        if self._read_line() != READY:
            status = self.end(grace_s=GRACE_S)
            raise RunStoppedError(f"a verifier worker could not start (exit status {status})")
        self._socket.settimeout(timeout_s + GRACE_S)

    @property
    def is_running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def ask(self, task: Task) -> str | None:
        """The worker's outcome; None where the process ended; "undecided" where it is stuck."""
        try:
            self._channel.write(json.dumps(task) + "\n")  # ASCII: any character is escaped
            self._channel.flush()
        except TimeoutError:
            return "undecided"
        except OSError:
            return None
        return self._read_line()

    def _read_line(self) -> str | None:
        try:
            return self._channel.readline().strip() or None
        except TimeoutError:
            return "undecided"
        except OSError:
            return None

    def end(self, grace_s: float = 0.0) -> int:
        """The exit status; a process that has not ended after ``grace_s`` is killed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()  # does nothing to a process that has ended
        status = self._process.wait()
        with suppress(OSError):  # unsent text of a broken conversation
            self._channel.close()
        self._socket.close()
        return status


class Worker:
    """One process at a time, started at the first question and replaced whenever it ends."""

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._process: Process | None = None

    def ask(self, task: Task) -> Reply:
        """The worker's reply; undecided where it hits a limit or the answer brings it down."""
        outcome, seconds = self._try(task)
        if outcome is None and self.close(grace_s=GRACE_S) == -signal.SIGKILL:
            # killed from outside: that was not the answer's doing
            outcome, seconds = self._try(task)
        if outcome is None or outcome == "undecided":
            self.close()  # the next answer gets fresh memory
        return Reply(outcome or "undecided", seconds)

    def _try(self, task: Task) -> tuple[str | None, float]:
        if self._process is not None and not self._process.is_running:
            self.close()
        if self._process is None:
            self._process = self._started()
        began = time.perf_counter()
        outcome = self._process.ask(task)
        return outcome, time.perf_counter() - began

    def _started(self) -> Process:
        for _ in range(STARTS - 1):  # one may be killed from outside while it starts
            with suppress(RunStoppedError):
                return Process(self._timeout_s, self._memory_bytes)
        return Process(self._timeout_s, self._memory_bytes)

    def close(self, grace_s: float = 0.0) -> int | None:
        """End the process; its exit status, None where there was none."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        return process.end(grace_s)


class Pool:
    """So many workers, each with its limits. One task at a time goes to a worker: a limit costs one."""

    def __init__(self, workers: int, timeout_s: float, memory_bytes: int) -> None:
        self._workers = [Worker(timeout_s, memory_bytes) for _ in range(workers)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    @contextmanager
    def accepting(self) -> Iterator[Callable[[Task], Future[Reply]]]:
        """A function that hands in one task and returns at once; its future holds the reply.

        Tasks wait in the order in which they came. At the end, those that no worker has begun are
        given up; what is being decided ends within its time limit, and no thread stays behind.
        """
        threads = ThreadPoolExecutor(len(self._workers))
        try:
            yield lambda task: threads.submit(self._decide, task)
        finally:
            threads.shutdown(cancel_futures=True)

    def _decide(self, task: Task) -> Reply:
        worker = self._idle.get()
        try:
            return worker.ask(task)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes; a later task starts new ones."""
        for worker in self._workers:
            worker.close()
