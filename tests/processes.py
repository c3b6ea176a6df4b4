"""Starting several ranks of a program, as torchrun does, and of a function."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[1]
# its children are processes of their own that need not import everything again
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "torch.distributed.fsdp", "rlrt.training.rollouts"])


def torchrun(processes: int) -> list[str]:
    """Arguments of the interpreter that have torchrun start what follows."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def run_ranks(processes: int, *program: str, timeout_s: float = 300) -> None:
    """Runs a program's ranks, one thread each; it must end well. A single one starts plainly."""
    done = subprocess.run(
        [sys.executable, *(torchrun(processes) if processes > 1 else []), *program],
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-4000:]


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
