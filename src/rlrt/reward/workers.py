"""Processes that compare answers, from both ends: the parent's pool, and ``main``, which a worker runs.

The parent starts ``python -m rlrt.reward.workers FD TIMEOUT_S MEMORY_BYTES``, writes one JSON line
``[answer, gold, free_text]`` after another to the socket FD, and reads one outcome each: "right",
"wrong", "undecided" (a limit was hit) or "failed" (the comparison raised an error). A worker imports no
torch. The kernel ends it when an answer outlasts its time, even inside C code that no Python handler
interrupts; it ends by itself when the socket closes, so a parent that dies in any way leaves none behind.
The pool is our own: those of libraries give no single task a limit of memory, and their processes begin
as forks of the parent or import its main module, torch and all.
"""

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import NamedTuple, TextIO

from rlrt.errors import RunStoppedError
from rlrt.reward.equivalence import is_equivalent

READY = "ready"
START_S = 120.0  # imports from a cold disk are slow
STARTS = 3  # attempts
GRACE_S = 2.0  # a worker ends at its own limit; the parent's is for one that was stopped


class Task(NamedTuple):
    """One question to a worker."""

    answer: str
    gold: str
    free_text: bool


class Reply(NamedTuple):
    """A worker's outcome, and the seconds that it took (starting a process is not counted)."""

    outcome: str
    seconds: float


class Process:
    """A running worker. RunStoppedError if it does not come up."""

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        self._socket, theirs = socket.socketpair()
        # A fresh interpreter and not multiprocessing: fork would copy the parent's threads; spawn
        # and forkserver would import the parent's main module, torch and all, in every worker.
        # -P: no file of the working directory stands in for a library.
        module = [sys.executable, "-P", "-m", "rlrt.reward.workers"]
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
            _send(self._channel, json.dumps(task))  # ASCII: any character is escaped
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
        self._limits = timeout_s, memory_bytes
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
            self._process = self._start()
        began = time.perf_counter()
        outcome = self._process.ask(task)
        return outcome, time.perf_counter() - began

    def _start(self) -> Process:
        for _ in range(STARTS - 1):  # one may be killed from outside while it starts
            with suppress(RunStoppedError):
                return Process(*self._limits)
        return Process(*self._limits)

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


def main() -> None:
    """In the worker: warm up, take on the limits, and answer until the parent closes the socket."""
    descriptor, timeout_s, memory_bytes = sys.argv[1:]
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit of its own
    is_equivalent("1", "2")  # imports the libraries and builds their tables
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # libraries print; a hundred thousand answers would bury the terminal
        os.dup2(nowhere, stream)
    _take_on_limits(int(memory_bytes))
    with socket.socket(fileno=int(descriptor)) as end:
        _serve(end.makefile("rw", encoding="ascii", newline="\n"), float(timeout_s))


def _serve(channel: TextIO, timeout_s: float) -> None:
    _send(channel, READY)
    for line in channel:
        answer, gold, free_text = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            outcome = "right" if is_equivalent(answer, gold, free_text) else "wrong"
        except (MemoryError, RecursionError):
            outcome = "undecided"
        except Exception:  # a fault of the library, which says nothing of the answer; it is counted
            outcome = "failed"
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(channel, outcome)


def _send(channel: TextIO, line: str) -> None:
    channel.write(line + "\n")
    channel.flush()


def _take_on_limits(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the time limit: the kernel ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # a mask is inherited


if __name__ == "__main__":
    main()
