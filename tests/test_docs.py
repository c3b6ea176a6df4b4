"""What the docs name is what the project has."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
