"""How a run ends early with one sentence instead of a traceback, and which of its processes says it.

Imports nothing heavy: a wrong setting is told before PyTorch is imported. Which process speaks is known
before the processes have met, from what their launcher has set, in the order in which Lightning asks:
torchrun's variables, those of Lightning's own children, srun, jsrun, mpirun.
"""

import errno
import os
from importlib.util import find_spec

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_SRUN = ("bash", "interactive")  # names of jobs in whose shell a process is started by hand
RESOLVING = "ValueError raised while resolving interpolation: "  # of OmegaConf
JSRUN = {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"}


class UserError(Exception):
    """A setting or a file is wrong; known before anything slow begins wherever that can be."""


class RunStoppedError(Exception):
    """A run cannot go on; what it has written so far is whole and can be resumed."""


def is_rank_zero() -> bool:
    """Whether this process writes files and speaks for the run: rank 0 does, and a single one."""
    return not any(map(int, _ranks()))


def launched_together() -> bool:
    """Whether a launcher has started other processes of this run beside this one.

    Not so where Lightning will start them, after this one has come so far.
    """
    return bool(_ranks())


def error_file() -> str:
    """The name of the file for the traceback that ends this process; no two ranks share one."""
    return "error.txt" if is_rank_zero() else f"error-rank-{'.'.join(_ranks())}.txt"


def one_line(error: BaseException) -> str:
    """An error's text as one line, with the choices where Hydra lists them."""
    text = str(error).split("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("full_key:", "object_type", "Set the env"))
    ]
    return " ".join(lines).removeprefix(RESOLVING) or type(error).__name__


def _ranks() -> tuple[str, ...]:
    """What the launcher calls this process: its rank, or those of its machine and on it; () alone."""
    given = os.environ
    node = "NODE_RANK" if "NODE_RANK" in given else "GROUP_RANK"
    srun = "SLURM_NTASKS" in given and given.get("SLURM_JOB_NAME") not in NOT_SRUN
    mpirun = "OMPI_COMM_WORLD_RANK" in given and find_spec("mpi4py") is not None
    for is_launcher, names, count in (
        ("RANK" in given, ("RANK",), "WORLD_SIZE"),
        ("LOCAL_RANK" in given, (node, "LOCAL_RANK"), "WORLD_SIZE"),
        (srun, ("SLURM_PROCID",), "SLURM_NTASKS"),
        (given.keys() >= JSRUN, ("JSM_NAMESPACE_RANK",), "JSM_NAMESPACE_SIZE"),
        (mpirun, ("OMPI_COMM_WORLD_RANK",), "OMPI_COMM_WORLD_SIZE"),
        # one on each machine, which starts the others there
        (node in given, (node,), "WORLD_SIZE"),
    ):
        if is_launcher:
            return () if given.get(count) == "1" else tuple(given.get(name, "0") for name in names)
    return ()
