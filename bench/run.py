"""The benchmark: ``python bench/run.py [parts …] [--gpu] [--quick] [--out bench/results]``.

Without parts all of them run, each in a process of its own. Prints a table for each, and writes
results.json and a picture (svg and png) into the folder; parts that do not run keep what stands
there. ``--quick`` runs every part at toy size, to see that it works. ``--gpu`` runs the parts for a
CUDA machine instead.
"""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

PARTS = {  # name -> module
    "update": "update",
    "context": "context_cost",
    "memory": "peak_memory",
    "steps": "end_to_end",
    "sync": "sync",
    "verifier": "verifier",
    "scaling": "scaling",
    "split": "distillation_split",
    "host": "host",
}
GPU_PARTS = {"gpu": "gpu"}
WIDTH = 120  # characters of a table


def main() -> None:
    """Run the parts, each in a child; exit status 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    available = GPU_PARTS if options.gpu else PARTS
    chosen = options.parts or list(available)
    for name in chosen:
        if name not in available:
            parser.error(f"there is no part {name}; there are {', '.join(available)}")
    if options.inside:
        return measure_here(chosen[0], options.quick, options.inside)
    from common import draw_all  # heavy imports wait until the words are known to be right

    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    failed = [name for name in chosen if not measured(name, options, results)]
    draw_all(results, {**PARTS, **GPU_PARTS}, options.out / "results")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    return None


def measured(name: str, options: argparse.Namespace, results: dict[str, Any]) -> bool:
    """Run one part in a child, show its table, put it into the JSON; False where it failed."""
    inside = options.out / f".{name}.json"
    flags = [flag for flag in ("gpu", "quick") if getattr(options, flag)]
    command = [sys.executable, __file__, name, *(f"--{flag}" for flag in flags)]
    done = subprocess.run([*command, "--inside", str(inside)])
    if done.returncode:
        return False
    results[name] = json.loads(inside.read_text())
    inside.unlink()
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    part = importlib.import_module({**PARTS, **GPU_PARTS}[name])
    console = Console()
    Console(width=max(console.width, WIDTH)).print(part.table(results[name]["rows"]))
    return True


def measure_here(name: str, quick: bool, out: Path) -> None:
    """Measure one part in this process."""
    from common import environment
    from ours import quiet

    quiet()
    part = importlib.import_module({**PARTS, **GPU_PARTS}[name])
    rows = part.measure(quick)
    out.write_text(json.dumps({"environment": environment(), "quick": quick, "rows": rows}))


if __name__ == "__main__":
    main()
