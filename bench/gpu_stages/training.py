"""Stages 3, 4 and 7: ``train.py`` as a user starts it; killed, resumed, sharded, and at full size."""

import csv
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from gpu_stages.stage import Check, attention_backend

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4  # rollout steps of the tiny policy
KILLED_AFTER = 2  # of them
STOP_S = 8.0  # before its limit a stage ends the run that it has
POLL_S = 0.05
SHOWN = (
    "time/step_s",
    "time/sync_s",
    "rollout/tokens_per_s",
    "update/mfu",
    "sync/logprob_gap",
    "sync/logprob_gap_mean",
    "memory/peak_gib",
)
QUIET = [
    "credit=rlrt",
    "logger=none",
    "evaluation=tiny",
    "evaluation.every_n_steps=null",
    "evaluation.max_problems=1",
    "evaluation.samples=1",
    "evaluation.pass_at=[1]",
]
SHORT_STEPS = 1  # of the run on the CPU that is not killed
ON_CARD = ["trainer.accelerator=gpu", "trainer.precision=bf16-mixed"]
ON_CPU = [
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "engine=hf",
    "reward.workers=1",
    "data.train_problems=64",
    "training.problems_per_step=2",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=2",
    "training.max_response_tokens=16",
]


class RunFailed(Exception):
    """train.py has ended, and not well."""


def run(check: Check) -> None:
    """The tiny policy in a single process."""
    killed_and_resumed(check, [])


def sharded(check: Check) -> None:
    """The same through FSDP2, on one device; on the CPU without being killed."""
    words = ["strategy=fsdp", "trainer.devices=1"]
    if check.card:
        killed_and_resumed(check, words)
        return
    folder = check.folder / "run"
    check.doing("steps")
    steps = f"trainer.max_epochs={SHORT_STEPS}"
    Training(check, folder, ["model=tiny", *QUIET, *ON_CPU, *words, steps]).follow(lambda: False)
    judge(check, folder, SHORT_STEPS)


def killed_and_resumed(check: Check, words: list[str]) -> None:
    """A run that is killed after two steps goes on after its last checkpoint."""
    folder = check.folder / "run"
    device = [*ON_CARD, *attention(check)] if check.card else ON_CPU
    began = time.monotonic()
    check.doing("the first start")
    train = Training(check, folder, ["model=tiny", *QUIET, *device, *words])
    train.follow(lambda: len(rows_of(folder)) >= KILLED_AFTER)
    check.note(two_steps_s=time.monotonic() - began)
    train.kill()
    done = len(rows_of(folder))
    steps = max(STEPS, done + 1)
    began = time.monotonic()
    check.doing("going on")
    resumed = Training(check, folder, [f"resume={folder}", f"trainer.max_epochs={steps}"])
    resumed.follow(lambda: False)
    check.note(resumed_s=time.monotonic() - began, killed_after=done)
    judge(check, folder, steps)


def judge(check: Check, folder: Path, steps: int) -> None:
    """Whether a run has made its steps, each once, and exported its policy."""
    rows = rows_of(folder)
    steps_found = [int(row["step"]) for row in rows]
    check.expect(
        steps_found == list(range(steps)),
        f"metrics.csv has the steps {steps_found}, not 0 to {steps - 1}",
    )
    check.expect(any((folder / "export").glob("*.safetensors")), "the run has exported nothing")
    report(check, rows)


def full_size(check: Check) -> None:
    """As many steps of a Qwen3-4B as the time allows; on the CPU two of a toy."""
    from gpu_stages.model import shape_of_stage, write_model  # imports all of transformers

    model = write_model(shape_of_stage(check.card), check.folder / "model")
    folder = check.folder / "run"
    words = [
        "model=qwen3_4b_base",
        f"model.path={model}",
        "model.random_init_seed=0",
        "data=arithmetic",
        "training.max_response_tokens=1024",
        "training.problems_per_step=8",
        "training.problems_per_update=8",
        "reward.flip_probability=0.4",  # random weights are never right: groups need a signal
        "checkpoint.every_n_steps=1000",  # none: 48 GB
    ]
    check.doing("steps")
    train = Training(check, folder, [*words, *QUIET, *(attention(check) if check.card else ON_CPU)])
    enough = math.inf if check.card else 2  # the toy's first has no signal
    train.follow(lambda: len(rows_of(folder)) >= enough or check.left_s < STOP_S)
    train.kill()
    rows = rows_of(folder)
    check.note(steps=len(rows))
    if not rows:
        raise RunFailed(f"no rollout step in {check.limit_s:.0f} s")
    tokens = median(row["rollout/tokens"] for row in rows)
    check.tell(f"{len(rows)} steps of {tokens:,.0f} response tokens")
    check.expect(
        sum(row["update/tokens_per_s"] for row in rows) > 0, "no update had a token to read"
    )
    report(check, rows)


def attention(check: Check) -> list[str]:
    """The word for vLLM's attention, where the run has to say one."""
    backend = attention_backend(check.card)
    check.note(attention_backend=backend)
    return [f"engine.attention_backend={backend}"] if backend else []


class Training:
    """A ``train.py`` that runs."""

    def __init__(self, check: Check, folder: Path, words: list[str]) -> None:
        check.folder.mkdir(exist_ok=True)
        command = [sys.executable, "src/rlrt/train.py", *words, f"hydra.run.dir={folder}"]
        print(" ".join(command), flush=True)
        self.log = check.folder / f"train_{len(list(check.folder.glob('train_*')))}.log"
        with self.log.open("wb") as output:
            # in this stage's process group, so that it ends with it
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    def follow(self, enough: Callable[[], bool]) -> None:
        """Until it has done enough or has ended; RunFailed where it ended badly."""
        while self.process.poll() is None and not enough():
            time.sleep(POLL_S)
        if self.process.poll():
            lines = self.log.read_text(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise RunFailed(f"train.py ended with status {self.process.returncode}: {said.strip()}")

    def kill(self) -> None:
        """SIGKILL; RunFailed where it had ended already."""
        if self.process.poll() is not None:
            raise RunFailed("train.py ended before it could be killed")
        self.process.kill()
        self.process.wait()


def rows_of(folder: Path) -> list[dict[str, float]]:
    """metrics.csv of a run, which is whole at every moment; no rows where there is none yet."""
    file = folder / "metrics.csv"
    if not file.exists():
        return []
    with file.open(newline="") as table:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(table)
        ]


def report(check: Check, rows: list[dict[str, float]]) -> None:
    """Medians over the steps, the first apart where there are others; it has started things up."""
    later = rows[1:] or rows
    medians = {name: median(row[name] for row in later) for name in SHOWN if name in later[0]}
    check.note(**medians, rows=rows)
    check.expect(
        all(math.isfinite(value) for row in rows for value in row.values()),
        "metrics.csv holds numbers that are not finite",
    )
    check.tell(
        f"{medians['time/step_s']:.1f} s a step, {medians['rollout/tokens_per_s']:,.0f} tokens/s, MFU of "
        f"updates {medians.get('update/mfu', 0):.1%}"
    )
    check.tell(
        f"gap up to {max(row['sync/logprob_gap'] for row in rows):.2g} nats, "
        f"peak {max(row['memory/peak_gib'] for row in rows):.1f} GiB"
    )
