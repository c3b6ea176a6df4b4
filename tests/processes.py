"""Starting several ranks of a program, as torchrun does."""

import os
import subprocess
import sys

from tests.conftest import ROOT


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
