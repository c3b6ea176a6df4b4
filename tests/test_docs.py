"""What docs/methods.md counts is what stands in the files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \|.*\| (\d+) \| (\d+) \|$", re.MULTILINE)


def lines(path: str) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def test_every_method_stands_there_with_its_lines() -> None:
    found = {name: (int(python), int(yaml)) for name, python, yaml in ROW.findall(METHODS)}
    names = {path.stem for path in (ROOT / "configs/credit").glob("*.yaml")}
    assert found == {
        name: (lines(f"src/rlrt/credit/{name}.py"), lines(f"configs/credit/{name}.yaml"))
        for name in names
    }
    for shared in ("reweighting", "distillation"):
        (count,) = re.findall(rf"`credit/{shared}\.py`\s+\((\d+) lines", METHODS)
        assert int(count) == lines(f"src/rlrt/credit/{shared}.py")


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"(?:scripts|bench|tests|docs|configs)/[\w/.-]*\w", METHODS):
        assert (ROOT / path).exists(), path


def test_no_gap_is_left_to_fill() -> None:
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        assert "@@" not in path.read_text(encoding="utf-8"), path
