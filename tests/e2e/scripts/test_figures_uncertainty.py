"""scripts/figures/uncertainty.py on a real run of the tiny policy."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest
from tests.e2e.scripts.commands import load_script, read_csv

from rlrt.errors import UserError
from rlrt.records import read_table, record_files, rollouts_of


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/uncertainty")


def test_a_row_per_rollout_step_as_its_records_say(
    script: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "uncertainty"
    script.main([str(run_folder), "--out", str(out), "--smooth", "1"])
    rows = read_csv(out.with_suffix(".csv"))
    paths = record_files(run_folder)
    assert [int(row["step"]) for row in rows] == list(range(len(paths)))
    for row, path in zip(rows, paths, strict=True):
        rollouts = rollouts_of(read_table(path))
        tokens = sum(len(rollout.response.ids) for rollout in rollouts)
        doubts = sum("Wait" in rollout.text for rollout in rollouts)  # its only word of doubt
        assert float(row["uncertainty_rate"]) == pytest.approx(1000 * doubts / tokens)
        assert float(row["response_tokens"]) == pytest.approx(tokens / len(rollouts))
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
    assert out.with_suffix(".png").is_file()
    assert "rlrt (seeds 0): mean response length" in capsys.readouterr().out


def test_what_cannot_be_drawn_is_one_sentence_and_nothing_is_written(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(
        run_folder, bare, ignore=shutil.ignore_patterns("checkpoints", "export", "rollouts")
    )
    out = tmp_path / "none" / "uncertainty"
    for arguments, said in (
        ([tmp_path / "nowhere"], "no such folder exists"),
        ([bare], "holds no records"),
        ([run_folder, run_folder], "same seed"),
        ([run_folder, "--smooth", "0"], "--smooth is 0"),
    ):
        with pytest.raises(UserError, match=said):
            script.main([str(argument) for argument in [*arguments, "--out", out]])
    assert not out.parent.exists()
