"""Analyses of runs and of evaluations. Their libraries are the project's extra ``analysis``."""

import sys
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import yaml

_MISSING = [name for name in ("matplotlib", "scipy", "sklearn") if find_spec(name) is None]
if _MISSING:  # here, where no script has imported anything that takes seconds
    print(
        f"error: an analysis needs {', '.join(_MISSING)}: install the project with its extra, "
        "as in pip install '.[analysis]'",
        file=sys.stderr,
    )
    raise SystemExit(2)


def read_data(name: str) -> Any:
    """The content of ``data/<name>.yaml``: lists of words and of columns, which are no code."""
    return yaml.safe_load((files(__name__) / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
