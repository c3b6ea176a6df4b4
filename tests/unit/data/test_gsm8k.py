import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.batch import Problem
from rlrt.data.gsm8k import Gsm8kProblems, gsm8k_problem, split_answer
from rlrt.data.problems import optional_fields
from rlrt.data.rows import BadRow, Row

HUB_ANSWER = (
    "In May she sold 48/2 = <<48/2=24>>24 clips.\n"
    "Altogether she sold 48+24 = <<48+24=72>>72 clips.\n#### 72"
)
WORKED = "In May she sold 48/2 = 24 clips.\nAltogether she sold 48+24 = 72 clips."


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HUB_ANSWER, (WORKED, "72")),
        ("She pays 2*500 = <<2*500=1000>>$1,000\n#### 1,000", ("She pays 2*500 = $1,000", "1000")),
        ("x\n####-1,234,567", ("x", "-1234567")),
        ("#### 3.50 ", (None, "3.50")),
        ("18", (None, "18")),
    ],
)
def test_worked_solution_and_final_number(text: str, parts: tuple[str | None, str]) -> None:
    assert split_answer(text) == parts


@pytest.mark.parametrize("text", ["so it is 72", "72 ####", "#### seventy", "#### 1,2"])
def test_no_final_number_is_a_bad_row(text: str) -> None:
    with pytest.raises(BadRow, match="no answer"):
        split_answer(text)


def test_rows_of_the_hub_and_of_a_plain_file() -> None:
    hub = Row("openai/gsm8k/train:5", {"question": "How many clips?", "answer": HUB_ANSWER})
    assert gsm8k_problem(hub) == Problem("train:5", "How many clips?", "72", "GSM8K", WORKED)
    plain = Row("x.jsonl:5", {"problem": "How many?", "answer": 72, "id": "gsm8k-5"})
    assert gsm8k_problem(plain) == Problem("gsm8k-5", "How many?", "72", "GSM8K", None)


def test_the_hub_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` loads a folder by the same call as a hub repository, its configuration too."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    (folder / "main").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n"
        "    path: main/train.parquet\n  - split: test\n    path: main/test.parquet\n---\n"
    )
    for part, count in {"train": 5, "test": 3}.items():
        rows = [{"question": f"{part} {n}?", "answer": f"n\n#### {n}"} for n in range(count)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "main" / f"{part}.parquet")
    source = Gsm8kProblems(name=str(folder))
    assert [p.answer for p in source.train().problems] == ["0", "1", "2", "3", "4"]
    assert {p.solution for p in source.train().problems} == {"n"}
    assert optional_fields(source.train()) == source.provides
    assert [p.id for p in source.held_out().problems] == ["test:1", "test:2", "test:3"]


def test_the_real_files(shared: Path) -> None:
    train, test = (str(shared / "data" / f"gsm8k_{part}.jsonl") for part in ("train", "test"))
    both = Gsm8kProblems(train, test, bad_rows="refuse")
    assert (len(both.train().problems), len(both.held_out().problems)) == (7473, 1319)
    assert both.train().dropped == both.held_out().dropped == {}
    few = Gsm8kProblems(train, test, held_out_problems=100).held_out()
    assert (len(few.problems), few.dropped) == (100, {"beyond held_out_problems": 1219})
    assert both.provides == {"solution"}
    assert optional_fields(both.train()) == set()  # these copies hold bare numbers
    alone = Gsm8kProblems(train)
    assert (len(alone.train().problems), len(alone.held_out().problems)) == (7345, 128)


def test_bad_rows_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    rows: list[Any] = [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Gsm8kProblems(str(path)).train().dropped == {"no answer": 1}
    with pytest.raises(ValueError, match=r"g\.jsonl:2: no answer"):
        Gsm8kProblems(str(path), bad_rows="refuse").train()
    with pytest.raises(ValueError, match=r"data\.path must be set too"):
        Gsm8kProblems(held_out_path=str(path))
    with pytest.raises(ValueError, match=r"data\.path is .* does not exist"):
        Gsm8kProblems(str(tmp_path / "gone.jsonl"))
    with pytest.raises(ValueError, match=r"data\.held_out_path is .* does not exist"):
        Gsm8kProblems(str(path), str(tmp_path / "gone.jsonl"))
