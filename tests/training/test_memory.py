"""Memory that is full ends a run with one sentence that names the settings to lower."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlrt.training.memory import TrainingMemoryError, within_memory

ROOT = Path(__file__).resolve().parents[2]
# The process may take 400 MB more than it has, and the update needs over a thousand.
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from rlrt.model.load import load_policy
from rlrt.training.memory import TrainingMemoryError
from rlrt.training.updates import Update
from tests.training.one_update import fit

ROWS, LENGTH = 32, 800
ones = torch.ones(ROWS, LENGTH)
update = Update(
    rows=tuple(range(ROWS)),
    prompts=((5, 6),) * ROWS,
    teacher_prompts=(None,) * ROWS,
    responses=tuple(tuple(10 + (row + t) % 200 for t in range(LENGTH)) for row in range(ROWS)),
    counted_BT=ones.bool(),
    mask_BT=ones.bool(),
    sampled_BT=ones.bool(),
    student_scored_B=torch.ones(ROWS, dtype=torch.bool),
    student_logprobs_BT=-5 * ones,
    engine_logprobs_BT=-5 * ones,
    advantages_BT=ones,
    distillation_BT=0 * ones,
)
policy = load_policy("models/tiny", torch.float32)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 400_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    fit(policy, update, Path(sys.argv[1]))
except TrainingMemoryError as error:
    print(error)
"""


@pytest.mark.slow
def test_an_update_that_finds_memory_full(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    said = done.stdout.strip().splitlines()[-1:]
    assert said, done.stderr[-2000:]
    assert re.fullmatch(
        r"out of memory in an update of rollout step 0 \(0\.\d\d GiB asked for\): use a "
        r"training\.token_budget below 1000000, or model\.gradient_checkpointing=true, or more "
        r"processes with strategy=fsdp",
        said[0],
    ), said


# as PyTorch 2.13 words it
ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 1.05 GiB is free. Including non-PyTorch memory, this process has 78.05 GiB memory in use."
)


@pytest.mark.parametrize(
    ("error", "figures"),
    [
        (torch.OutOfMemoryError(ON_A_GPU), r" \(2\.32 GiB asked for, 1\.05 GiB free\)"),
        (MemoryError(), r""),
    ],
)
def test_what_was_asked_and_what_was_free(error: Exception, figures: str) -> None:
    with (
        pytest.raises(TrainingMemoryError, match=rf"^out of memory in it{figures}: use a, or b$"),
        within_memory("it", ["a", "b"]),
    ):
        raise error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), within_memory("it", ["a"]):
        raise RuntimeError("shapes differ")
