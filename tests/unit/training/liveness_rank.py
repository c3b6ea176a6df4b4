"""One rank of test_liveness.py: it meets the others, and then does what its word says."""

import os
import sys
import time
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist

from rlrt.errors import RunStoppedError
from rlrt.training.liveness import RankWatch


def meet() -> None:
    """A collective, which waits for all ranks."""
    dist.all_reduce(torch.ones(1))


def fork() -> None:
    """Leave a child that holds this process's descriptors."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    time.sleep(60)


def busy() -> None:
    """Work during which the interpreter's lock is never free for long."""
    until = time.monotonic() + 4
    while time.monotonic() < until:
        sum(range(10_000_000))
    meet()


def stop() -> None:
    """A reason of the run's own."""
    raise RunStoppedError("the loss is not a number")


def err() -> None:
    """Any other error."""
    raise KeyError("a bug")


def main(folder: str, rank: int, size: int, act: str, ready: Connection) -> None:
    """Connect, say so, and act; what is written to stderr goes to a file of the rank's own."""
    os.setsid()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    said = os.open(f"{folder}/{rank}.err", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 2)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    acts = {
        "meet": meet,
        "sleep": lambda: time.sleep(60),
        "fork": fork,
        "busy": busy,
        "stop": stop,
        "err": err,
        "differ": RankWatch(folder, {"agreed": "1", "seed": str(rank)}).require_same_settings,
        "end": lambda: sys.exit(0),
    }
    with RankWatch(folder) as watch:
        watch.start()
        meet()
        ready.send("ready")
        acts[act]()
    dist.destroy_process_group()
