"""scripts/figures/pass_curves.py on folders of evaluations with known answers."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from tests.e2e.scripts.commands import load_script, read_csv
from tests.paths import ROOT
from tests.processes import run_command
from tests.unit.analysis.evaluations import evaluation_folder

from rlrt.errors import UserError
from rlrt.records import read_table, write_table

SCRIPT = ROOT / "scripts" / "figures" / "pass_curves.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/pass_curves")


def numbers(path: Path) -> dict[tuple[str, str, int], float]:
    return {
        (row["benchmark"], row["method"], int(row["k"])): float(row["pass_at_k"])
        for row in read_csv(path)
    }


def test_writes_the_figure_and_its_numbers(tmp_path: Path) -> None:
    base = evaluation_folder(tmp_path / "seed=0", {"b": [1, 0], "c": [2]}, 4)
    tuned = [evaluation_folder(tmp_path / f"t{n}", {"b": [n, n], "c": [4]}, 4) for n in (1, 2)]
    out = tmp_path / "figures" / "curves"
    words = [str(base), *(f"rlrt={folder}" for folder in tuned), "--out", str(out)]
    done = run_command(str(SCRIPT), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{out}{ending}" for ending in (".svg", ".png", ".csv")]
    found = numbers(out.with_suffix(".csv"))
    assert len(found) == 2 * 2 * 3
    assert found["b", "seed=0", 1] == pytest.approx(1 / 8)  # a folder, for all its sign
    assert found["b", "rlrt", 1] == pytest.approx((1 / 4 + 2 / 4) / 2)  # the mean of two seeds
    assert found["c", "rlrt", 4] == 1.0
    drawn = out.with_suffix(".svg").read_text()
    assert all(word in drawn for word in (">b<", ">c<", ">rlrt<", ">seed=0<"))


def test_one_benchmark_alone(script: ModuleType, tmp_path: Path) -> None:
    folder = evaluation_folder(tmp_path / "e", {"b": [1], "c": [2]}, 2)
    script.main([f"x={folder}", "--benchmark", "c", "--out", str(tmp_path / "one.svg")])
    assert {key[:2] for key in numbers(tmp_path / "one.csv")} == {("c", "x")}


def test_a_folder_that_is_no_evaluation_is_one_sentence(script: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    (tmp_path / "run" / "rollouts" / "step=000000.parquet").write_bytes(b"")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "broken" / "records").mkdir(parents=True)
    (tmp_path / "broken" / "records" / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty").mkdir()
    whole = evaluation_folder(tmp_path / "whole", {"b": [1]}, 2)
    for word, sentence in (
        (str(tmp_path / "missing"), "no such folder exists"),
        (str(tmp_path / "empty"), "holds no records"),
        (str(tmp_path / "run"), r"is a run folder: evaluate it first, .*eval\.py model=.*/run "),
        (str(tmp_path / "begun"), "is a run folder: evaluate it first"),
        (f"x={tmp_path / 'broken'}", "is no readable parquet file"),
    ):
        with pytest.raises(UserError, match=sentence):
            script.main([str(whole), word, "--out", str(out)])
    with pytest.raises(UserError, match="holds no answers to d, only to b"):
        script.main([str(whole), "--benchmark", "d", "--out", str(out)])
    assert not list(tmp_path.glob("out*"))


def results(folder: Path, **averages: float) -> None:
    """results.json of an evaluation, or of a comparison, on a benchmark b."""
    models = [
        {"model": f"runs/{name}", "pass_at": {"1": {"value": value}}}
        for name, value in averages.items()
    ]
    said = {
        "models": [{"name": one["model"]} for one in models],
        "benchmarks": [{"name": "b", "models": models}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(said))


@pytest.mark.parametrize("place", [".", "comparison"])
def test_a_comparison_stands_for_what_it_compares(
    script: ModuleType, tmp_path: Path, place: str
) -> None:
    """With out= the evaluations lie in its folder, else beside it, among others of their names."""
    out = tmp_path / "eval"
    for name, policy, count in (("x-1", "rlrt_0", 2), ("x-2", "rlrt_0", 1), ("x-3", "rlrt_1", 2)):
        results(evaluation_folder(out / name, {"b": [count]}, 2), **{policy: count / 2})
    results(out / place, rlrt_0=0.5, rlrt_1=1.0)
    script.main([str(out / place), "--out", str(tmp_path / "each")])
    found = numbers(tmp_path / "each.csv")
    assert found["b", "runs/rlrt_0", 1] == 0.5  # of x-2, whose numbers were compared
    assert found["b", "runs/rlrt_1", 1] == 1.0
    script.main([f"rlrt={out / place}", "--out", str(tmp_path / "seeds")])
    assert {row["evaluations"] for row in read_csv(tmp_path / "seeds.csv")} == {"2"}
    (out / "x-2" / "results.json").unlink()
    with pytest.raises(UserError, match=r"compares runs/rlrt_0, whose evaluation is neither in it"):
        script.main([str(out / place), "--out", str(tmp_path / "none")])


def test_problems_asked_unequally_often_are_one_sentence(
    script: ModuleType, tmp_path: Path
) -> None:
    folder = evaluation_folder(tmp_path / "e", {"b": [1, 2]}, 2)
    path = folder / "records" / "b.parquet"
    write_table(read_table(path).slice(1), path)
    with pytest.raises(UserError, match=r"b\.parquet holds 1 samples of problem b/0 and 2 of b/1"):
        script.main([str(folder), "--out", str(tmp_path / "out")])
