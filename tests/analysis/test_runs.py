"""Which run folders are one method, and by which name."""

from pathlib import Path

import pytest

from rlrt.analysis.runs import Run, group_runs
from rlrt.errors import UserError


def run(seed: int, mixing: float, credit: str = "rlrt.RLRT") -> Run:
    method = {"credit._target_": f"rlrt.credit.{credit}", "credit.mixing": mixing}
    return Run(Path(f"{credit}{mixing}/{seed}"), seed, method, [], [])


def test_methods_of_one_class_are_told_apart_by_their_settings() -> None:
    methods = group_runs([run(0, 0.5), run(0, 0.5, "grpo.GRPO"), run(1, 0.5), run(0, 1.0)])
    assert {name: len(runs) for name, runs in methods.items()} == {
        "rlrt credit.mixing=0.5": 2,
        "grpo": 1,
        "rlrt credit.mixing=1.0": 1,
    }


def test_a_seed_counts_once() -> None:
    with pytest.raises(UserError, match="two runs of rlrt have the same seed"):
        group_runs([run(0, 0.5), run(0, 0.5)])
