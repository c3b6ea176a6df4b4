"""A method is one Python file and one YAML: docs/example_assigner, put into a copy of the project."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from tests.paths import ROOT
from tests.processes import Entry, run_entry

EXAMPLE = ROOT / "docs" / "example_assigner"
TRAIN = [
    "credit=surprise",
    "credit.bonus=0.25",
    "model=tiny",
    "engine=hf",
    "logger=none",
    "trainer.max_epochs=2",
    "training.problems_per_step=2",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=4",
    "training.max_response_tokens=48",
    "evaluation.max_problems=2",
    "evaluation.samples=2",
    "evaluation.pass_at=[1,2]",
    "reward.workers=1",
]


def add_method(project: Path, name: str, python: str, yaml: str) -> None:
    """The two files of a new method, and nothing else."""
    for path, text in (
        (project / "src/rlrt/credit" / f"{name}.py", python),
        (project / "configs/credit" / f"{name}.yaml", yaml),
    ):
        assert not path.exists()
        path.write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example method."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("src", "configs", "tests", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    add_method(
        copy,
        "surprise",
        (EXAMPLE / "surprise.py").read_text(),
        (EXAMPLE / "surprise.yaml").read_text(),
    )
    return copy


def contract(project: Path, name: str) -> tuple[int, list[str], str]:
    """How many contract tests of a method passed, the names of those that failed, and the output."""
    options = [
        "-n0",
        "-rf",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    words = [*options, "-k", name, "tests/unit/credit/test_contract.py"]
    process = Entry(project / f"{name}.log", "pytest", *words, project=project)
    status, output = process.wait(250), process.log.read_text()
    passed = re.search(r"(\d+) passed", output)
    failed = re.findall(r"^FAILED \S+::(\w+)\[", output, re.MULTILINE)
    assert status == (1 if failed else 0), output
    return int(passed[1]) if passed else 0, failed, output


def test_a_new_method_trains(project: Path) -> None:
    words = ("hydra.run.dir=logs/new", *TRAIN)
    run_entry(project / "new.log", "src/rlrt/train.py", *words, project=project)
    with (project / "logs/new/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(1 <= float(row["credit/multiplier_mean"]) <= 1.25 for row in rows)
    assert any(float(row["credit/multiplier_mean"]) > 1 for row in rows)
    assert all(0 < float(row["credit/surprising_tokens"]) < 1 for row in rows)
    assert "bonus: 0.25" in (project / "logs/new/config.yaml").read_text()
    assert (project / "logs/new/export/model.safetensors").exists()


def test_the_contract_test_picks_a_new_method_up(project: Path) -> None:
    passed, failed, output = contract(project, "surprise")
    assert passed >= 10, output
    assert not failed


def test_a_method_that_breaks_the_contract_fails_it(project: Path) -> None:
    """Credit outside the mask, where a token of padding would be trained on."""
    text = (EXAMPLE / "surprise.py").read_text()
    leaky = text.replace(" * multiplier_BT * mask_BT,", " * multiplier_BT,")
    assert leaky != text
    yaml = (EXAMPLE / "surprise.yaml").read_text().replace(".surprise.", ".leaky.")
    add_method(project, "leaky", leaky, yaml)
    _, failed, output = contract(project, "leaky")
    assert "test_shape_finite_detached_and_zero_outside_the_mask" in failed, output
    assert "test_more_padding_changes_nothing" in failed, output
