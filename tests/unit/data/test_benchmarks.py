import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlrt.batch import Problem
from rlrt.config.compose import compose
from rlrt.config.problem_sets import benchmark_names, build_source, load_benchmark
from rlrt.data.benchmarks import PAPER_BENCHMARKS, Benchmark, read_problem_file
from rlrt.data.sources import Source
from rlrt.errors import UserError

THREE = Benchmark("three", "three.jsonl", "some/where", "test", "question", "number", 3)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(count: int) -> list[dict[str, Any]]:
    return [{"problem": f"Find {n}.", "answer": n, "id": f"p{n}"} for n in range(count)]


def test_a_local_file_in_the_order_of_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "three.jsonl", [*rows(2), {"question": "Find two.", "answer": "2"}])
    assert THREE.read(tmp_path).problems == (
        Problem("p0", "Find 0.", "0", "three"),
        Problem("p1", "Find 1.", "1", "three"),
        Problem("three.jsonl:3", "Find two.", "2", "three"),
    )


def test_the_hub_has_columns_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = [{"question": f"Find {n}.", "answer": float(n), "number": n + 1} for n in range(3)]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "set" / "test.parquet")
    hub = str(tmp_path / "set")
    found = Benchmark("three", "three.jsonl", hub, "test", "question", "number", 3).read()
    assert [(p.id, p.answer) for p in found.problems] == [("1", "0"), ("2", "1"), ("3", "2")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"answer": None}, r"three\.jsonl:2: no answer"),
        ({"answer": " "}, r"three\.jsonl:2: no answer"),
        ({"problem": ""}, r"three\.jsonl:2: no question"),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused_with_its_place(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    broken = rows(3)
    broken[1] |= changed
    path = write(tmp_path / "three.jsonl", broken)
    with pytest.raises(ValueError, match=words):
        THREE.read(tmp_path)
    with pytest.raises(ValueError, match=words):
        read_problem_file(path, "benchmark")


def test_a_part_of_a_benchmark_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "three.jsonl", rows(2))
    with pytest.raises(ValueError, match=r"three\.jsonl holds 2 problems, but three has 3"):
        THREE.read(tmp_path)
    assert len(read_problem_file(path, "benchmark").problems) == 2
    with pytest.raises(ValueError, match=r"the file of three is .* does not exist"):
        THREE.read(tmp_path / "nowhere")


def test_ids_are_unique(tmp_path: Path) -> None:
    same = [{"question": f"Find {n}.", "answer": "1", "id": "x"} for n in range(2)]
    found = read_problem_file(write(tmp_path / "own.set.jsonl", same), "benchmark")
    assert [(p.id, p.source) for p in found.problems] == [("x", "own"), ("x#2", "own")]


def test_names() -> None:
    assert benchmark_names(["all"]) == list(PAPER_BENCHMARKS)
    assert benchmark_names(["amc23", "all", "own.jsonl", "arithmetic"]) == [
        "amc23",
        *(name for name in PAPER_BENCHMARKS if name != "amc23"),
        "own.jsonl",
        "arithmetic",
    ]
    with pytest.raises(
        UserError, match=r"benchmark is aime27, it must be all, one of aime24, aime"
    ):
        benchmark_names(["aime24", "aime27"])
    with pytest.raises(UserError, match=r"data\.overlap_with is aime27, it must be"):
        benchmark_names(["aime27"], "data.overlap_with")
    with pytest.raises(UserError, match=r"benchmark is 'own\.jsonl', which does not exist"):
        load_benchmark("own.jsonl")


def test_arithmetic_is_what_training_on_it_holds_out() -> None:
    source = build_source(compose(["data=arithmetic"]).data)
    assert load_benchmark("arithmetic") == source.held_out()


def test_a_file_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", rows(2))
    assert [p.answer for p in load_benchmark(str(path)).problems] == ["0", "1"]


@pytest.mark.parametrize("data", ["jsonl", "dapo_math_17k", "gsm8k"])
def test_every_source_leaves_out_what_overlaps_a_named_benchmark(tmp_path: Path, data: str) -> None:
    train = [
        {"problem": "Find the largest even number below 17 that is a square.", "answer": "16"},
        {"problem": "A bus of 40 seats is full. How many people sit in 7 buses?", "answer": "280"},
        {"problem": "A bus of 41 seats is full. How many people sit in 9 buses?", "answer": "369"},
    ]
    test = [{"problem": r"A bus of $40$ seats is full. How many people sit in \(7\) buses?"}]
    test += [{"problem": f"What is the root of $x^{n} - {n}$?"} for n in range(2, 31)]
    write(tmp_path / "aime24.jsonl", [row | {"answer": "1"} for row in test])
    path = write(tmp_path / "train.jsonl", train)
    settings = [f"data={data}", f"data.path={path}", "data.held_out_problems=0"]
    overlap = ["data.overlap_with=[aime24]", f"data.overlap_folder={tmp_path}"]
    kept = build_source(compose([*settings, *overlap]).data).train()
    assert [p.answer for p in kept.problems] == ["16", "369"]
    assert kept.dropped == {"overlap": 1}
    assert len(build_source(compose(settings).data).train().problems) == 3


def test_the_hub_source_takes_the_same_settings() -> None:
    source = build_source(
        compose(["data=hub", "data.name=some/where", "data.overlap_with=[all]"]).data
    )
    assert isinstance(source, Source)
    assert [b.name for b in source.overlap_with if isinstance(b, Benchmark)] == list(
        PAPER_BENCHMARKS
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.overlap_with=aime24"], "data.overlap_with is "),
        (["data.overlap_with=[aime27]"], "data.overlap_with is aime27, it must be all"),
        (
            ["data.overlap_with=[arithmetic]"],
            "data.overlap_with is arithmetic, it must be all, one",
        ),
        (["data.overlap_with=[nowhere.jsonl]"], "does not exist"),
        (["data.overlap_folder=there"], "names no benchmark to read from it"),
        (["data.overlap_similarity=0"], "data.overlap_similarity is 0; allowed: over 0, at most 1"),
        (
            ["data.overlap_similarity=1.5"],
            "data.overlap_similarity is 1.5; allowed: over 0, at most 1",
        ),
    ],
)
def test_settings_are_checked_before_anything_is_read(settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        build_source(compose(["data=dapo_math_17k", *settings]).data)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("aime24", 30),
        ("aime25", 30),
        ("aime26", 30),
        ("hmmt26", 33),
        ("amc23", 40),
        ("math500", 500),
    ],
)
def test_the_real_files(shared: Path, name: str, count: int) -> None:
    found = load_benchmark(name, shared / "data").problems
    assert len({problem.id for problem in found}) == count
    assert {problem.source for problem in found} == {name}


def test_a_home_that_cannot_be_reached_names_the_settings_of_a_local_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    nowhere = Benchmark("three", "three.jsonl", str(tmp_path / "no"), "test", "question", "id", 3)
    with pytest.raises(ValueError, match=r"could not be loaded: .*benchmark_folder= \(data\.over"):
        nowhere.read()
