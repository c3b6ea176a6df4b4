"""scripts/figures/theory.py on a real run of the tiny policy."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.e2e.scripts.commands import load_script, read_csv

from rlrt.errors import UserError
from rlrt.records import read_table, rollouts_of, step_files

SMALL = ["--worlds", "3", "--positions", "4", "--continuations", "4", "--tokens", "3"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/theory")


def test_worlds_alone(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--out", str(tmp_path / "theory"), "--worlds", "3"])
    said = capsys.readouterr().out
    assert said.count("Theorem 2 broken at 0,") == 4
    assert {row["panel"] for row in read_csv(tmp_path / "theory.csv")} == {"world"}
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png", ".csv"}


def test_positions_of_a_run_the_same_each_time(
    script: ModuleType, tmp_path: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("once", "again"):
        script.main([str(run_folder), "--out", str(tmp_path / name / "theory"), *SMALL])
    assert (tmp_path / "once/theory.svg").read_bytes() == (
        tmp_path / "again/theory.svg"
    ).read_bytes()
    rows = [r for r in read_csv(tmp_path / "once/theory.csv") if r["panel"] == "policy"]
    assert rows == [r for r in read_csv(tmp_path / "again/theory.csv") if r["panel"] == "policy"]
    assert len(rows) == 4
    for row in rows:
        assert 0 < float(row["covered"]) <= 1.0001
        assert float(row["teacher_divergence"]) > 0
        # whatever f was estimated, the Bayesian teacher made of it obeys the theorem
        assert float(row["influence"]) ** 2 <= 2 * float(row["divergence"]) + 1e-20
    assert "4 positions" in capsys.readouterr().out


def test_another_step_is_read_by_what_the_run_keeps_of_it(
    script: ModuleType, tmp_path: Path, run_folder: Path
) -> None:
    assert script.policy_of_step(run_folder, 2) == str(run_folder / "exports" / "step-000002")
    script.main([str(run_folder), "--step", "2", "--out", str(tmp_path / "theory"), *SMALL])
    assert any(row["panel"] == "policy" for row in read_csv(tmp_path / "theory.csv"))


def test_a_token_that_ends_the_response_is_judged_as_it_is(
    script: ModuleType, run_folder: Path
) -> None:
    """Behind a stop token nothing is sampled: all continuations have the recorded verdict."""
    options = script.argparse.Namespace(step=0, continuations=2, seed=0, engine="hf")
    loaded = script.load_run(run_folder, script.policy_of_step(run_folder, 0))
    ends = [
        rollout
        for rollout in rollouts_of(read_table(step_files(run_folder)[0]))
        if rollout.response.ids[-1] in loaded.stop_token_ids
    ]
    right = next(r for r in ends if r.verdict is script.Verdict.RIGHT)
    wrong = next(r for r in ends if r.verdict is script.Verdict.WRONG)
    places = [
        script.Place(0, r, len(r.response.ids) - 1, (r.response.ids[-1],), torch.ones(1), 0.1)
        for r in (right, wrong)
    ]
    counts = script.count_right(loaded, places, options)
    assert [of_place[:, 0].tolist() for of_place in counts] == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "7"], "no records of rollout step 7"),
        (["--least-entropy", "50"], "no response of rollout step 0 has both"),
        (["--continuations", "5"], "--continuations is 5, it must be even"),
        (["--positions", "0"], "--positions is 0, it must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    script: ModuleType, tmp_path: Path, run_folder: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        script.main([str(run_folder), "--out", str(tmp_path / "out/theory"), *SMALL, *words])
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_and_a_missing_checkpoint_are_named(
    script: ModuleType, tmp_path: Path, run_folder: Path
) -> None:
    with pytest.raises(UserError, match="nowhere is no run folder"):
        script.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "theory")])
    with pytest.raises(UserError, match=r"rollout step 9, but those of 0, 1, 2, 3: choose"):
        script.policy_of_step(run_folder, 9)
