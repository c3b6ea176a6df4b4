"""Lists of words and of columns, which are data and no code."""

from importlib.resources import files
from typing import Any

import yaml


def read_data(name: str) -> Any:
    """The content of ``<name>.yaml`` in this folder."""
    return yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
