"""Rates of doubt against hand counts."""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.analysis.runs import Run
from rlrt.analysis.uncertainty import (
    PANELS,
    WORDS,
    draw,
    rate_over_training,
    uncertainty,
    uncertainty_rate,
)
from rlrt.errors import UserError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, let me reconsider. WAIT! Hmm: maybe.", 4),
        ("waiting awaits hmmm mightily unlikely rechecked checks", 0),
        (r"\text{wait}-might've 3wait wait_3", 2),
        (" ".join(WORDS), 10),
        ("wait" * 100_000, 0),
        ("", 0),
    ],
)
def test_whole_words_of_any_case_are_counted(text: str, count: int) -> None:
    assert uncertainty_rate([text], [50]) == 20.0 * count


def test_the_rate_is_that_of_all_tokens_together() -> None:
    assert uncertainty_rate(["wait", "maybe wait", "none"], [10, 30, 60]) == 30.0
    assert math.isnan(uncertainty_rate([], []))
    assert math.isnan(uncertainty_rate([""], [0]))


def run_of(folder: Path, responses: Sequence[tuple[str, int]], seed: int = 0) -> Run:
    """A run with one response of so many tokens in each step."""
    (folder / "rollouts").mkdir(parents=True)
    for step, (text, tokens) in enumerate(responses):
        table = pa.table({"response": [text], "response_ids": [[7] * tokens], "step": [step]})
        pq.write_table(table, folder / "rollouts" / f"step={step:06d}.parquet")
    metrics = [{"step": float(step)} for step in range(len(responses))]
    return Run(folder, seed, {}, metrics, [])


def test_rows_hold_the_rate_and_the_length_of_every_step(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [("wait", 10), ("fine", 20)])
    other = run_of(tmp_path / "b", [("hmm, maybe", 8)], seed=1)
    assert uncertainty({"rlrt": [run], "grpo": [other]}) == [
        {
            "method": "rlrt",
            "seed": 0,
            "step": 0,
            "uncertainty_rate": 100.0,
            "response_tokens": 10.0,
        },
        {"method": "rlrt", "seed": 0, "step": 1, "uncertainty_rate": 0.0, "response_tokens": 20.0},
        {
            "method": "grpo",
            "seed": 1,
            "step": 0,
            "uncertainty_rate": 250.0,
            "response_tokens": 8.0,
        },
    ]


def test_a_step_without_records_is_one_sentence(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [("wait", 10)] * 3)
    (tmp_path / "a" / "rollouts" / "step=000001.parquet").unlink()
    with pytest.raises(UserError, match="lacks the records of rollout step 1"):
        rate_over_training(run)


def test_records_of_another_format_are_one_sentence(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [("wait", 10)])
    path = tmp_path / "a" / "rollouts" / "step=000000.parquet"
    pq.write_table(pa.table({"step": [0], "response": ["wait"]}), path)
    with pytest.raises(UserError, match="another format: it lacks response_ids"):
        rate_over_training(run)
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="no readable parquet file"):
        rate_over_training(run)
    run_of(tmp_path / "b", [("wait", 10)])
    whole = pq.read_table(tmp_path / "b" / "rollouts" / "step=000000.parquet")
    pq.write_table(whole.slice(0, 0), path)
    with pytest.raises(UserError, match="without rollouts"):
        rate_over_training(run)


def test_lines_are_means_and_bands_the_range_over_seeds(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "0", [("wait", 10), ("fine", 20), ("fine", 20)], seed=0),
        run_of(tmp_path / "1", [("wait wait", 10), ("wait", 20)], seed=1),
    ]
    figure = draw(uncertainty({"rlrt": runs}), smooth=1)
    rate, length = figure.axes
    assert rate.lines[0].get_xydata().tolist() == [[0, 150.0], [1, 25.0]]  # the steps of both
    assert length.lines[0].get_ydata().tolist() == [10.0, 20.0]
    band = rate.collections[0].get_paths()[0].vertices.tolist()
    assert [0.0, 100.0] in band
    assert [0.0, 200.0] in band
    assert [1.0, 50.0] in band
    smoothed = draw(uncertainty({"rlrt": runs}), smooth=2)
    assert smoothed.axes[0].lines[0].get_ydata().tolist() == [150.0, 87.5]
    assert [axes.get_title() for axes in figure.axes] == list(PANELS.values())
    assert "25.0 rlrt" in [text.get_text() for text in rate.texts]
