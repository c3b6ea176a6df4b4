"""Run folders read back, and which of them are one method."""

from pathlib import Path

import pytest

from rlrt.analysis.runs import Run, group_runs, read_run
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


TABLES = {"metrics.csv": "step,a\n0,1\n1,2\n", "evaluation.csv": "step,avg@2\n0,0.1\n2,0.2\n"}
CONFIG = "seed: 1\ncredit: {_target_: rlrt.credit.rlrt.RLRT}\n"


def written(folder: Path, **files: str) -> Path:
    for name, text in ({"config.yaml": CONFIG} | TABLES | files).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    found = read_run(written(tmp_path))
    assert (found.seed, len(found.metrics), found.evaluations[-1]["avg@2"]) == (1, 2, 0.2)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("config.yaml", "seed: 0\ncredit: {}", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: null", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: 5", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: {_target_: RLRT}", "no settings of a run with credit"),
        ("config.yaml", "seed: 0\ncredit: {_target_: [a.b]}", "no settings of a run with credit"),
        ("config.yaml", "seed: x\ncredit: {_target_: a.B}", "seed is 'x', no whole number"),
        ("config.yaml", "credit: {_target_: a.B}", "seed is None, no whole number"),
        ("config.yaml", f"{CONFIG}a: &x [*x]", r"config.yaml is damaged \(RecursionError\)"),
        ("metrics.csv", "step\n" + "1" * 200_000, r"metrics.csv is not a table .* \(field larger"),
        ("metrics.csv", "step,a\n0,1\nnan,1", "metrics.csv is damaged: .* row of step nan"),
        ("evaluation.csv", "step,a\n0,1\ninf,1", "evaluation.csv is damaged: .* row of step inf"),
        ("evaluation.csv", "step,a\n0,1\n1.5,1", "row of step 1.5"),
        ("metrics.csv", "step,a\n-1,1", "row of step -1"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        read_run(written(tmp_path, **{file: text}))
    assert "\n" not in str(caught.value)
