"""Which process speaks for a run of several. Imports nothing heavy: errors are told before PyTorch."""

import os


def leads() -> bool:
    """Whether this process writes files and speaks for the run: rank 0 does.

    Known before the processes have met, from what their launcher (torchrun, srun or Lightning) has set.
    """
    names = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)
