"""scripts/figures/critical_positions.py on a real run of the tiny policy, its page in a real Chromium."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.browser import open_page, screenshot_path
from tests.e2e.scripts.commands import load_script, read_csv
from transformers import PreTrainedTokenizerBase

from rlrt.errors import UserError
from rlrt.records import read_table

LONG = 20_000  # tokens
Row = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/critical_positions")


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """A run folder that a test may change."""
    return shutil.copytree(run_folder, tmp_path / "logs" / "rlrt_tiny")


def record_of(folder: Path, step: int) -> Path:
    return folder / "rollouts" / f"step={step:06d}.parquet"


def rewrite(path: Path, change: Callable[[list[Row]], Iterator[Row] | list[Row]]) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(list(change(table.to_pylist())), table.schema), path)


@pytest.mark.parametrize("step", [0, 1])
def test_numbers_are_those_of_the_run(
    script: ModuleType, run_folder: Path, tmp_path: Path, step: int
) -> None:
    """At a step whose sampling policy is kept, both views are those that the run recorded."""
    out = tmp_path / "critical"
    script.main([str(run_folder), "--step", str(step), "--rollouts", "2", "--out", str(out)])
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".svg", ".png", ".csv"}
    rows = read_csv(out.with_suffix(".csv"))
    table = read_table(record_of(run_folder, step), script.READ).to_pylist()
    shown = {(int(row["group"]), int(row["sample"])) for row in rows}
    assert len(shown) == 2
    assert len({group for group, _ in shown}) == 2, "one of a problem"
    for group, sample in shown:
        (record,) = [r for r in table if (r["group"], r["sample"]) == (group, sample)]
        assert record["verdict"] == "right"
        assert record["teacher_logprobs"] is not None
        own = [r for r in rows if (int(r["group"]), int(r["sample"])) == (group, sample)]
        tokens = [r for r in own if r["kind"] == "token"]
        assert [int(r["id"]) for r in tokens] == record["response_ids"]
        assert [float(r["credit"]) for r in tokens] == pytest.approx(record["credit"])
        recorded = [
            mine - other
            for mine, other in zip(
                record["student_logprobs"], record["teacher_logprobs"], strict=True
            )
        ]
        found = [float(r["log_ratio"]) for r in tokens]
        assert found == pytest.approx(recorded, abs=1e-4)
        assert all(float(r["divergence"]) >= -1e-6 for r in tokens)
        assert len(own) - len(tokens) == 5 * 8
    with open_page(out.with_suffix(".html")) as page:
        assert page.locator("section").count() == 2
        count = sum(row["kind"] == "token" for row in rows)
        assert page.locator(".block span").count() == count


def test_those_with_the_largest_divergence_are_shown_first(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    means = {}
    for count in (1, 3):
        out = tmp_path / str(count)
        script.main([str(run_folder), "--step", "1", "--rollouts", str(count), "--out", str(out)])
        values: dict[str, list[float]] = {}
        for row in read_csv(out.with_suffix(".csv")):
            if row["kind"] == "token":
                values.setdefault(row["group"], []).append(float(row["divergence"]))
        means[count] = {group: sum(v) / len(v) for group, v in values.items()}
    assert list(means[3].values()) == sorted(means[3].values(), reverse=True)
    assert list(means[1]) == list(means[3])[:1]


def test_correct_is_what_the_verifier_says_whatever_it_earned(
    script: ModuleType, copy: Path, tmp_path: Path
) -> None:
    rewrite(record_of(copy, 1), lambda rows: [row | {"reward": 1 - row["reward"]} for row in rows])
    script.main([str(copy), "--step", "1", "--out", str(tmp_path / "x")])
    right = {
        (row["group"], row["sample"])
        for row in read_table(record_of(copy, 1)).to_pylist()
        if row["verdict"] == "right"
    }
    shown = {(int(r["group"]), int(r["sample"])) for r in read_csv(tmp_path / "x.csv")}
    assert shown <= right


def test_a_rollout_that_the_run_did_not_read_can_be_shown(
    script: ModuleType, copy: Path, tmp_path: Path
) -> None:
    rewrite(
        record_of(copy, 2),
        lambda rows: [row | {"student_logprobs": None, "teacher_logprobs": None} for row in rows],
    )
    script.main([str(copy), "--context", "answer", "--model", "tiny", "--out", str(tmp_path / "x")])
    assert read_csv(tmp_path / "x.csv")


def sentence(script: ModuleType, *arguments: str | Path) -> str:
    with pytest.raises(UserError) as raised:
        script.main([str(argument) for argument in arguments])
    return str(raised.value)


def test_what_cannot_be_shown_is_one_sentence_and_nothing_is_written(
    script: ModuleType, copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "figure"
    assert "no run folder" in sentence(script, tmp_path / "nowhere", "--out", out)
    assert "holds those of 3 steps from 0 to 2" in sentence(
        script, copy, "--step", "9", "--out", out
    )
    assert "--top is 0" in sentence(script, copy, "--top", "0", "--out", out)
    assert "--rollouts is 0" in sentence(script, copy, "--rollouts", "0", "--out", out)
    assert "no such run" in sentence(script, copy, "--model", "nothing", "--out", out)
    rewrite(record_of(copy, 2), lambda rows: [row | {"verdict": "wrong"} for row in rows])
    assert "no correct rollout" in sentence(script, copy, "--out", out)
    rewrite(record_of(copy, 1), lambda rows: [row | {"response": "?"} for row in rows])
    assert "tokenizer" in sentence(script, copy, "--step", "1", "--out", out)
    table = pq.read_table(record_of(copy, 0)).drop_columns(["credit"])
    pq.write_table(table, record_of(copy, 0))
    assert "it lacks credit" in sentence(script, copy, "--step", "0", "--out", out)
    assert not out.parent.exists()


def lengthened(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the last step one correct response of ``LONG`` tokens.

    It is made of the responses that the run's policy sampled, end to end; the policy's positions
    go on to be rotated beyond the length that it was trained at.
    """
    path = folder / "export" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"max_position_embeddings": 2 * LONG}), encoding="utf-8")
    for checkpoint in (folder / "checkpoints").iterdir():
        checkpoint.unlink()  # the model's own configuration allows too few positions
    shutil.rmtree(folder / "exports")
    sampled = [
        row["response_ids"]
        for step in range(3)
        for row in read_table(record_of(folder, step)).to_pylist()
        if row["reward"] == 1
    ]
    ids = list(islice(chain.from_iterable(cycle(sampled)), LONG))

    def one(rows: list[Row]) -> Iterator[Row]:
        unread = ("student_logprobs", "student_entropy", "teacher_logprobs")
        yield {
            **next(row for row in rows if row["reward"] == 1),
            **dict.fromkeys(unread),
            "response_ids": ids,
            "response": tokenizer.decode(ids, skip_special_tokens=True),
            "engine_logprobs": [0.0] * LONG,
            "credit": [1.0] * LONG,
        }

    rewrite(record_of(folder, 2), one)


@pytest.mark.slow
def test_a_response_of_20000_tokens_in_a_real_browser(
    script: ModuleType, copy: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    lengthened(copy, tokenizer)
    out = tmp_path / "long"
    script.main([str(copy), "--context", "answer", "--top", "40", "--out", str(out)])
    rows = [row for row in read_csv(out.with_suffix(".csv")) if row["kind"] == "token"]
    assert len(rows) == LONG
    assert out.with_suffix(".html").stat().st_size < 900_000
    with open_page(out.with_suffix(".html"), height=900) as page:
        assert page.locator(".block span").count() == LONG
        page.locator(".critical").first.hover()
        page.wait_for_selector("#tip:not([hidden])")
        page.screenshot(path=screenshot_path("heat_map_20000.png", tmp_path))
