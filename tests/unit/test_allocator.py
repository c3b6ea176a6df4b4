"""What the user says about memory counts."""

import os

import pytest

from rlrt.allocator import NAMES, grow_segments


@pytest.mark.parametrize("name", [None, *NAMES])
def test_segments_grow_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    for known in NAMES:
        monkeypatch.setenv(known, "")  # so that it is restored
        monkeypatch.delenv(known)
    if name is not None:
        monkeypatch.setenv(name, "max_split_size_mb:512")
    grow_segments()
    found = {known: os.environ[known] for known in NAMES if known in os.environ}
    own = {name: "max_split_size_mb:512"}
    assert found == (own if name else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
