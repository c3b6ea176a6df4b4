"""What a step samples and an evaluation measures does not depend on the number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.processes import call_ranks
from tests.unit.training.share_rank import main


def run(processes: int, folder: Path) -> list[dict[str, Any]]:
    call_ranks(processes, main, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_sample_and_measure_what_one_does(tmp_path: Path) -> None:
    """With groups that are replaced, and with a rank that has no problem to ask."""
    (alone,), two = run(1, tmp_path / "one"), run(2, tmp_path / "two")
    assert alone["resampled"] == 3, "the spare problems are used up before the groups speak"
    assert sorted(two[0]["rollouts"] + two[1]["rollouts"]) == alone["rollouts"]
    for name in ("resampled", "discarded"):
        assert two[0][name] + two[1][name] == alone[name]
    for rank in two:
        assert rank["measured"] == alone["measured"]
