"""The analyses' libraries are an extra, which an install may lack."""

import os
import subprocess
import sys

import pytest
from tests.paths import ROOT


@pytest.mark.parametrize("script", ["figures/theory", "report", "credit_table"])
def test_a_script_without_them_ends_in_one_sentence(script: str) -> None:
    code = (
        "import runpy, sys; sys.modules['scipy'] = None; "
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"scripts/{script}.py", "--help"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: an analysis needs scipy: install")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
