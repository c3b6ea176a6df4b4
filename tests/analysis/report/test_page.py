"""The whole page."""

import math

from tests.analysis.report.folders import Make, seeded, whole_page

from rlrt.analysis.report.runs import read_runs


def test_five_long_runs_fit_a_small_page(make: Make) -> None:
    names = [f"stage/quantity_{number}" for number in range(40)]
    rows = [
        ",".join([str(step), *(f"{math.sin(step * (n + 1)):.17g}" for n in range(len(names)))])
        for step in range(1000)
    ]
    table = [",".join(["step", *names]), *rows]
    runs = read_runs([make(f"run{seed}", seeded(seed), table) for seed in range(5)])
    assert len(whole_page(runs).encode()) < 5e6
