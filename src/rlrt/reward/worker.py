"""The worker process: ``python -m rlrt.reward.worker FD TIMEOUT_S MEMORY_BYTES``.

Reads one JSON line ``[answer, gold, free_text]`` after another from the socket FD and writes one
verdict line each. Imports no torch. The kernel ends it when an answer outlasts its time, even
inside C code that no Python handler interrupts; it ends by itself when the socket closes, so a
parent that dies in any way leaves no worker behind.
"""

import json
import logging
import os
import resource
import signal
import socket
import sys
from typing import TextIO

from rlrt.reward.equivalence import is_equivalent

READY = "ready"


def main() -> None:
    """Warm up, take on the limits, and answer until the parent closes the socket."""
    descriptor, timeout_s, memory_bytes = sys.argv[1:]
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit of its own
    is_equivalent("1", "2")  # imports the libraries and builds their tables
    _silence()
    _limit(int(memory_bytes))
    with socket.socket(fileno=int(descriptor)) as end:
        _serve(end.makefile("rw", encoding="ascii", newline="\n"), float(timeout_s))


def _serve(channel: TextIO, timeout_s: float) -> None:
    _send(channel, READY)
    for line in channel:
        answer, gold, free_text = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            verdict = "right" if is_equivalent(answer, gold, free_text) else "wrong"
        except (MemoryError, RecursionError):
            verdict = "undecided"
        except Exception:  # a fault of the library, which says nothing of the answer; it is counted
            verdict = "failed"
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(channel, verdict)


def _send(channel: TextIO, line: str) -> None:
    channel.write(line + "\n")
    channel.flush()


def _silence() -> None:
    """Libraries print; a hundred thousand answers would bury the terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the time limit: the kernel ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # a mask is inherited


if __name__ == "__main__":
    main()
