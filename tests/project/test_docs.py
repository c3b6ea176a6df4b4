"""What the docs name is what the project has."""

import re

from tests.paths import ROOT

METHODS = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \|.*arXiv|^\| `(\w+)` \|.*this project", re.MULTILINE)


def test_every_method_stands_in_the_table() -> None:
    named = {one or other for one, other in ROW.findall(METHODS)}
    assert named == {path.stem for path in (ROOT / "configs/credit").glob("*.yaml")}
    for name in named:
        assert (ROOT / f"src/rlrt/credit/{name}.py").is_file()


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"(?:scripts|bench|tests|docs|configs)/[\w/.-]*\w", METHODS):
        assert (ROOT / path).exists(), path


def test_no_gap_is_left_to_fill() -> None:
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        assert "@@" not in path.read_text(encoding="utf-8"), path


def test_the_walk_names_every_stop_once() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\| (\d+) \|.*?\| `([\w/]+\.py)` \|", text, re.MULTILINE)
    assert [int(number) for number, _ in stops] == list(range(1, len(stops) + 1))
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    assert len(set(files)) == len(files)
    for name in files:
        assert (ROOT / name).is_file() or (ROOT / "src/rlrt" / name).is_file(), name
