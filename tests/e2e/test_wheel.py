"""The installed package runs without a checkout: its commands, presets, tiny policy, and what a user adds."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from tests.paths import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' folder of an environment that holds the wheel beside this one's libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env/bin/python"
    paths = sysconfig.get_paths(vars={"base": str(folder / "env"), "platbase": str(folder / "env")})
    libraries = Path(paths["purelib"])
    # a path within a .pth file brings the libraries without the editable install's own .pth
    (libraries / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    (wheel,) = folder.glob("*.whl")
    install = ("install", "--no-deps", "--no-index", "--python", str(python), str(wheel))
    subprocess.run(
        [shutil.which("uv", path=Path(sys.executable).parent) or "uv", "pip", *install],
        check=True,
        capture_output=True,
    )
    return folder / "env/bin"


def run(command: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_method_from_outside_trains_and_is_reported(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "own/credit").mkdir(parents=True)
    example = ROOT / "docs/example_assigner"
    shutil.copy(example / "surprise.py", tmp_path / "my_surprise.py")
    settings = (example / "surprise.yaml").read_text("utf-8")
    (tmp_path / "own/credit/surprise.yaml").write_text(
        settings.replace("rlrt.credit.surprise", "my_surprise")
    )
    small = (
        "model=tiny",
        "engine=hf",
        "trainer.max_epochs=1",
        "evaluation.max_problems=4",
        "training.problems_per_step=4",
        "training.problems_per_update=4",
    )
    trained = run(
        installed / "rlrt",
        "train",
        "--config-dir",
        "own",
        "credit=surprise",
        *small,
        "hydra.run.dir=here",
        folder=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "my_surprise.Surprise" in (tmp_path / "here/config.yaml").read_text("utf-8")
    assert str(ROOT) not in (tmp_path / "here/config.yaml").read_text("utf-8")
    assert (tmp_path / "here/export/model.safetensors").exists()
    reported = run(installed / "rlrt", "report", "here", "--out", "page.html", folder=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_its_module_is_what_torchrun_starts(installed: Path, tmp_path: Path) -> None:
    checked = run(
        installed / "python", "-m", "rlrt.train", "model=tiny", "check=true", folder=tmp_path
    )
    assert checked.returncode == 0, checked.stderr
    assert "would start" in checked.stdout


def test_a_command_that_does_not_exist(installed: Path, tmp_path: Path) -> None:
    answer = run(installed / "rlrt", "trian", folder=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "train, eval, report" in answer.stderr
