import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tests.processes import call_ranks
from tests.unit.training.step import step_of

from rlrt import distributed
from rlrt.records import read_table, step_files, write_records
from rlrt.training.metrics import rollout_metrics


def tell(folder: Path) -> None:
    """One of two ranks, whose parts are uneven."""
    sampled, batch, credit, counts = step_of((1, 2) if distributed.get_rank() == 0 else (0, 3))
    write_records(folder / "both", 7, sampled.rollouts, ["q"] * 4, batch, credit)
    row = rollout_metrics(sampled, batch, credit, batch.student_scored_B, counts)
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps(row))


def test_worked_out_by_hand() -> None:
    sampled, batch, credit, counts = step_of()
    row = rollout_metrics(sampled, batch, credit, batch.student_scored_B, counts)
    tokens = 16
    assert row["rollout/tokens"] == tokens
    assert row["rollout/response_tokens_mean"] == 2
    assert row["rollout/response_tokens_max"] == 4
    assert row["reward/mean"] == row["reward/correct"] == 0.5
    assert row["reward/undecided"] == row["rollout/truncated"] == 1 / 8
    assert row["reward/flipped"] == 0
    assert row["rollout/zero_signal_groups"] == 0.5
    assert row["rollout/discarded_tokens"] == 40
    assert row["context/found"] == 0.25
    assert row["context/teacher_scored"] == 1 / 8
    assert row["context/shortened"] == 0.5
    assert row["credit/taught"] == 2 / tokens
    assert row["credit/abs_mean"] == pytest.approx((2 * 0.75 + (3 + 3 + 1) * 0.5) / tokens)
    assert row["credit/multiplier_mean"] == pytest.approx((2 * 1.5 + 7) / 9)
    assert "credit/never" not in row  # nothing to average


def test_the_student_view_is_averaged_where_it_was_scored_and_the_engine_everywhere() -> None:
    """Entry numbers of rollouts 0, 1 and 6: 1 2, 5 6 7, 25 26 27; of all responses 16 of them."""
    sampled, batch, credit, counts = step_of()
    row = rollout_metrics(sampled, batch, credit, batch.student_scored_B, counts)
    scored = torch.tensor([1.0, 2, 5, 6, 7, 25, 26, 27])
    every = torch.tensor([1.0, 2, 5, 6, 7, 9, 13, 14, 15, 16, 21, 22, 25, 26, 27, 29])
    assert row["rollout/entropy"] == pytest.approx(float(0.1 * scored.mean()))
    assert row["rollout/student_minus_engine"] == pytest.approx(float(-0.01 * scored.mean()))
    assert row["rollout/student_engine_gap"] == pytest.approx(float(0.01 * scored.mean()))
    assert row["rollout/engine_entropy"] == pytest.approx(float(0.02 * every.mean()))
    assert row["score/student_share"] == 8 / 16
    assert row["score/teacher_share"] == 2 / 16
    assert row["score/skipped_rollouts"] == 4 / 8  # rollout 7 has credit and no view before it


def test_what_a_distilled_rollout_costs_is_not_skipped() -> None:
    sampled, batch, credit, counts = step_of()
    distilled = torch.zeros_like(credit.advantages_BT)
    distilled[2, 0] = 1
    row = rollout_metrics(
        sampled, batch, replace(credit, distillation_BT=distilled), batch.student_scored_B, counts
    )
    assert row["score/skipped_rollouts"] == 3 / 8


def test_without_any_scored_token_the_means_over_them_are_left_out() -> None:
    sampled, batch, credit, counts = step_of()
    nobody = torch.zeros(8, dtype=torch.bool)
    zeros = torch.zeros_like(credit.advantages_BT)
    row = rollout_metrics(
        sampled,
        replace(batch, student_scored_B=nobody),
        replace(credit, advantages_BT=zeros),
        nobody,
        counts,
    )
    assert not {"rollout/entropy", "rollout/student_engine_gap"} & row.keys()
    assert row["credit/multiplier_mean"] == 1


@pytest.mark.slow
def test_two_ranks_say_what_one_says_and_write_one_table(tmp_path: Path) -> None:
    """Uneven parts: a mean of the ranks' means would differ, and so would the order of the rows."""
    call_ranks(2, tell, tmp_path)
    rows = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    sampled, batch, credit, counts = step_of()
    alone = rollout_metrics(sampled, batch, credit, batch.student_scored_B, counts)
    for row in rows:
        assert list(row) == list(alone)
        assert row == pytest.approx(alone, rel=1e-12)
    write_records(tmp_path / "alone", 7, sampled.rollouts, ["q"] * 8, batch, credit)
    name, both = "step=000007.parquet", tmp_path / "both"
    assert [file.name for file in both.iterdir()] == [name]
    parts = [both / name / f"{rank:04d}-of-0002.parquet" for rank in range(2)]
    assert sorted((both / name).iterdir()) == parts
    assert set(pq.read_table(parts[0])["group"].to_pylist()) == {1, 2}, "its own alone"
    assert pq.read_table(both / name).num_rows == 8, "other readers take it for one table"
    expected = read_table(tmp_path / "alone" / name, ["credit", "student_logprobs"])
    assert read_table(both / name, ["credit", "student_logprobs"]).equals(expected)
    assert read_table(both / name, only=["reward"]).equals(expected.select(["reward"]))

    (tmp_path / "rollouts").symlink_to(both)
    assert step_files(tmp_path) == {7: tmp_path / "rollouts" / name}
    write_records(both, 7, sampled.rollouts, ["q"] * 8, batch, credit)  # by one process
    assert [file.name for file in both.iterdir()] == [name]
    assert (both / name).is_file()
