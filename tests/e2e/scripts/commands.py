"""What the tests of commands share: a command in this process, and the tables that commands write."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

from tests.paths import ROOT

SCRIPTS = ROOT / "scripts"


def load_script(name: str) -> ModuleType:
    """The module of ``scripts/<name>.py``, as in ``figures/theory``: no seconds of imports for every
    case.
    """
    path = SCRIPTS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a heading, each cell as it is written."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
