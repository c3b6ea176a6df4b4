"""What the README shows is what the project has."""

import re

import pytest
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_is_the_tested_one() -> None:
    for name in ("surprise.py", "surprise.yaml"):
        assert (ROOT / "docs/example_assigner" / name).read_text(encoding="utf-8") in README


@pytest.mark.parametrize(
    "group",
    [
        "credit",
        "model",
        "data",
        "engine",
        "context",
        "teacher",
        "prompts",
        "loss",
        "aggregation",
        "reward",
        "logger",
    ],
)
def test_the_table_names_every_option(group: str) -> None:
    (row,) = re.findall(rf"^\| `{group}=` \|(.*)\|$", README, flags=re.MULTILINE)
    options = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")} - {"none"}
    named = set(re.findall(r"`([a-z0-9_]+)`", row)) - {"none"}
    assert options == named - {"random", "shortest", "longest"}  # of context.choice


def test_every_package_stands_in_the_table() -> None:
    packages = {
        path.name
        for path in (ROOT / "src/rlrt").iterdir()
        if not path.name.startswith("_") and path.suffix in ("", ".py")
    }
    named = set(re.findall(r"`([a-z_]+(?:/|\.py))`", README))
    assert {f"{name}/" if "." not in name else name for name in packages} <= named


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"(?:scripts|bench|tests|docs|models|configs)/[\w/.-]*\w", README):
        if "surprise" not in path:
            assert (ROOT / path).exists(), path
