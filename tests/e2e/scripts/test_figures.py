"""What all commands in scripts/figures have in common."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.scripts.commands import SCRIPTS, load_script

from rlrt.errors import UserError

FIGURES = sorted(path.stem for path in (SCRIPTS / "figures").glob("*.py"))
ROOT = SCRIPTS.parent
COMMANDS = [f"scripts/figures/{name}.py" for name in FIGURES]
# looks at the environment at the moment that PyTorch is imported, and ends there
WATCH = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch", os.environ.get("TORCH_CPP_LOG_LEVEL"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
runpy.run_path(sys.argv[1], run_name="watched")
import torch
"""


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("out", ["file/x", "."])
def test_an_impossible_place_is_refused_before_any_work(
    name: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read: the folder does not exist either."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=f"^--out is {out}, where nothing can be written"):
        load_script(f"figures/{name}").main(["nowhere", "--out", out])


@pytest.mark.parametrize("name", FIGURES)
def test_every_option_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_script(f"figures/{name}").main(["--help"])
    lines = capsys.readouterr().out.split("options:")[1].splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  --"):  # its help stands behind it, or on the next line
            behind = len(line.strip().split("  ", 1)) == 2
            assert behind or lines[number + 1].startswith(" " * 10), line


@pytest.mark.parametrize("command", [*COMMANDS, "src/rlrt/train.py", "src/rlrt/eval.py"])
def test_pytorch_is_quiet_in_every_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", WATCH, command],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "torch ERROR\n", done.stderr
