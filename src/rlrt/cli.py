"""``rlrt train``, ``rlrt eval``, ``rlrt report`` …: the commands by one name, wherever it is installed.

``rlrt train credit=rlrt model=tiny`` is ``python -m rlrt.train credit=rlrt model=tiny``, which torchrun
starts (``torchrun --nproc-per-node 8 -m rlrt.train …``).
"""

import runpy
import sys

from rlrt.config.compose import PROJECT

MODULES = {"train": "train a policy", "eval": "evaluate policies"}
SCRIPTS = {
    "report": ("report.py", "one HTML page about one or several runs"),
    "compare": ("compare_runs.py", "one table of several runs"),
    "credit": ("credit_table.py", "what a method does to a hand-written group"),
    "grade": ("grade.py", "run the verifier over a file of answers"),
    "contamination": ("contamination.py", "find a benchmark's problems in a training set"),
}
USAGE = "\n".join(
    [
        "usage: rlrt <command> [words of the command]; rlrt <command> --help lists them",
        "",
        *(f"  {name:15}{what}" for name, what in MODULES.items()),
        *(f"  {name:15}{what}" for name, (_, what) in SCRIPTS.items()),
    ]
)


def main() -> None:
    """The command that the first word names, as if Python had been started with it."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    name = words[0]
    sys.argv[1:] = words[1:]
    sys.path.insert(0, "")  # as with python -m: own modules of the current folder can be named
    if name in MODULES:
        # as the main module: further processes of the run are started by its name
        runpy.run_module(f"rlrt.{name}", run_name="__main__", alter_sys=True)
    elif name in SCRIPTS:
        runpy.run_path(str(PROJECT / "scripts" / SCRIPTS[name][0]), run_name="__main__")
    else:
        commands = ", ".join([*MODULES, *SCRIPTS])
        print(f"error: {name} is no command of rlrt, it must be one of {commands}", file=sys.stderr)
        sys.exit(2)
