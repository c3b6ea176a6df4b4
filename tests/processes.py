"""Starting several ranks of a program, as torchrun does, and of a function."""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from tests.paths import ROOT

# its children are processes of their own that need not import everything again
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "torch.distributed.fsdp", "tests.preload"])


def torchrun(processes: int) -> list[str]:
    """Arguments of the interpreter that have torchrun start what follows."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def call_ranks(
    count: int, function: Callable[..., None], folder: Path, *words: Any, timeout_s: float = 120
) -> None:
    """Have so many ranks of a gloo group, one thread each, call ``function(folder, *words)``; all
    must return. The function is found by its name.
    """
    folder.mkdir(exist_ok=True)
    ranks = [
        SERVER.Process(target=_call, args=(rank, count, function, folder, words))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    until = time.monotonic() + timeout_s
    for process in ranks:
        process.join(max(0.0, until - time.monotonic()))
    statuses = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    said = [(folder / f"stderr.{rank}").read_text()[-3000:] for rank in range(count)]
    assert statuses == [0] * count, said


def _call(
    rank: int, count: int, function: Callable[..., None], folder: Path, words: tuple[Any, ...]
) -> None:
    os.dup2(os.open(folder / f"stderr.{rank}", os.O_WRONLY | os.O_CREAT), 2)
    os.environ |= {"OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(count)}
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    function(folder, *words)
    dist.destroy_process_group()  # whose threads would else end the interpreter's last moments


class Entry:
    """A script or module of the project in a process and session of its own, in
    ``subprocess.Popen``'s words.

    What it imports is imported already; all else is as a user starts it. ``log`` takes what it prints,
    or ``errors`` what goes to stderr. ``before`` is called in the process first. In another
    ``project``, a copy, the package is that of the copy.
    """

    def __init__(
        self,
        log: Path,
        script: str,
        *words: str,
        errors: Path | None = None,
        before: Callable[[], Any] | None = None,
        project: Path = ROOT,
        **environment: str,
    ) -> None:
        self.log, self.errors = log, errors or log
        log.touch()
        self.errors.touch()
        streams = (str(self.log), str(self.errors))
        arguments = (streams, before, project, script, words, environment)
        self.process = SERVER.Process(target=_enter, args=arguments)
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; TimeoutExpired where it has not ended by then."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.log), timeout or 0)
        return self.process.exitcode

    def kill_group(self) -> None:
        """SIGKILL for it and what it has started."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.join()


def run_entry(
    log: Path,
    script: str,
    *words: str,
    timeout_s: float = 280,
    project: Path = ROOT,
    **environment: str,
) -> str:
    """What a command printed that must end well."""
    status = Entry(log, script, *words, project=project, **environment).wait(timeout_s)
    printed = log.read_text()
    assert status == 0, printed[-4000:]
    return printed


def run_command(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What became of a command, in ``subprocess.run``'s words."""
    with tempfile.TemporaryDirectory() as folder:
        entry = Entry(Path(folder) / "out", script, *words, errors=Path(folder) / "errors")
        status = entry.wait(120)
        printed, errors = entry.log.read_text(), entry.errors.read_text()
    return subprocess.CompletedProcess([script, *words], status, printed, errors)


def _enter(
    streams: tuple[str, str],
    before: Callable[[], Any] | None,
    project: Path,
    script: str,
    words: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    os.setsid()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where tests run in the background
    os.chdir(project)
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    for stream, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(":") if folder]
    if project != ROOT:
        sys.path[:0] = [str(project / "src"), str(project)]
        for name in list(sys.modules):
            if name.partition(".")[0] in ("rlrt", "tests"):
                del sys.modules[name]
    if before:
        before()
    sys.argv = [str(project / script), *words]
    if script.endswith(".py"):
        sys.path.insert(0, str((project / script).parent))
        runpy.run_path(str(project / script), run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__")


def run_ranks(processes: int, program: str, *words: str, log: Path, timeout_s: float = 300) -> None:
    """Runs a program's ranks, one thread each, with torchrun's variables; all must end well.

    A single one starts plainly. ``log`` is a folder for what they print.
    """
    log.mkdir(exist_ok=True)
    ranks = []
    port = str(free_port())
    for rank in range(processes):
        told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told |= {"LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "test"}
        environment = told if processes > 1 else {}
        ranks.append(Entry(log / f"rank{rank}.log", program, *words, **environment))
    until = time.monotonic() + timeout_s
    try:
        statuses = [rank.wait(max(0.0, until - time.monotonic())) for rank in ranks]
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill_group()
    assert statuses == [0] * processes, [rank.log.read_text()[-4000:] for rank in ranks]


def free_port() -> int:
    """Of this machine, a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
