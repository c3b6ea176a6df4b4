"""Settings read back from a file."""

from pathlib import Path

import pytest

from rlrt.assembly.configuration import PROJECT, leaves, load_yaml
from rlrt.errors import UserError


def test_a_file_is_resolved_by_the_words_of_this_project(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("a: {b: 2, c: [1, 2]}\nd: ${a.b}\ne: ${project:models}\n")
    found = leaves(load_yaml(path))
    assert found == {"a.b": 2, "a.c": [1, 2], "d": 2, "e": str(PROJECT / "models")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", r"some\.yaml is damaged \(ParserError\)"),
        (b"a: \xff", r"some\.yaml is damaged \(UnicodeDecodeError\)"),
        (b"a: ${b}", r"some\.yaml is damaged \(InterpolationKeyError\)"),
        (b"- 1", r"some\.yaml is damaged: it holds no settings"),
        (None, r"some\.yaml is damaged \(FileNotFoundError\)"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "some.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_yaml(path)
