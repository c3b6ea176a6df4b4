"""Rules of the repository: which package may import which, names, and what no file may say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.paths import ROOT

SOURCE = ROOT / "src" / "rlrt"
SCRIPTS = ROOT / "scripts"

LAYERS = (
    {"batch", "errors", "estimators", "files", "hub", "distributed", "seeds", "validation"},
    {"loss"},
    {"model"},
    {"data", "context", "engine", "reward", "credit", "records"},
    {"training"},
    {"config"},
    {"analysis", "evaluation"},
    {"train", "eval", "cli"},
)
LAYER_OF_PACKAGE = {name: layer for layer, names in enumerate(LAYERS) for name in names}
ENTRIES = {"config", "evaluation", "train", "eval", "cli"}


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    """The first name below rlrt: a folder's or a module's."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module's full name; `from a import b` counts as `a.b`. Anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> list[str]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def importers(package: str, *folders: Path) -> set[Path]:
    return {
        path
        for path in python_files(*folders)
        if any(name.split(".")[0] == package for name in imports_of(path))
    }


def forbidden_imports(path: Path) -> list[str]:
    """Imports of packages that are neither in a lower layer nor the file's own."""
    here = package_of(path)
    packages = [name.split(".")[1] for name in imports_of(path) if name.startswith("rlrt.")]
    return [
        package
        for package in packages
        if package != here and LAYER_OF_PACKAGE[package] >= LAYER_OF_PACKAGE[here]
    ]


def test_every_package_has_a_layer() -> None:
    packages = {package_of(path) for path in python_files(SOURCE)} - {"__init__"}
    assert packages <= LAYER_OF_PACKAGE.keys()


def test_files_import_only_lower_layers_and_their_own_package() -> None:
    files = [path for path in python_files(SOURCE) if package_of(path) != "__init__"]
    forbidden = {name_of(path): forbidden_imports(path) for path in files}
    assert not {name: packages for name, packages in forbidden.items() if packages}


def test_one_file_alone_imports_vllm() -> None:
    assert importers("vllm", SOURCE, SCRIPTS) <= {SOURCE / "engine" / "vllm_engine.py"}


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_lightning_is_known_to_the_data_module_training_and_the_entries(package: str) -> None:
    outside = {
        name_of(path)
        for path in importers(package, SOURCE) - {SOURCE / "data" / "module.py"}
        if package_of(path) not in {"training", *ENTRIES}
    }
    assert not outside


@pytest.mark.parametrize("package", ["hydra", "omegaconf"])
def test_hydra_is_known_to_the_entries(package: str) -> None:
    outside = {
        name_of(path) for path in importers(package, SOURCE) if package_of(path) not in ENTRIES
    }
    assert not outside


def test_packages_shadow_no_other_package() -> None:
    """`python src/rlrt/train.py` puts src/rlrt first on the path, before everything installed."""
    packages = {package_of(path) for path in python_files(SOURCE)} - {"__init__"}
    installed = {
        name for name, owners in packages_distributions().items() if set(owners) != {"rlrt"}
    }
    assert not packages & (installed | sys.stdlib_module_names)
    assert "utils" not in packages


@pytest.fixture(scope="module")
def project_texts() -> dict[str, str]:
    """Every text file that git keeps or would keep, by its name."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so its own files cannot be told from others")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    contents = {name_of(path): path.read_bytes() for path in files if path.is_file()}
    return {
        name: content.decode("utf-8")
        for name, content in contents.items()
        if b"\0" not in content[:8192]
    }


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.}\])*-])/(?:root|home|Users|work|opt|tmp/w)/", id="machine path"),
        pytest.param(r"\bpypi\.org|pythonhosted\.org|download\.pytorch\.org", id="registry"),
        pytest.param(r"^\s*(?:-f|-i|--find-links|--(?:extra-)?index-url)\b", id="package index"),
    ],
)
def test_no_file_names_a_machine(project_texts: dict[str, str], pattern: str) -> None:
    found = {
        f"{name}:{number}": line
        for name, text in project_texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    }
    assert not found


@pytest.mark.parametrize("build", ["base", "cpu", "gpu"])
def test_pins_cover_every_declared_package(build: str) -> None:
    """A package without a line in requirements/<build>.txt would be installed in any version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [
        line
        for extra, lines in extras.items()
        if extra == build or extra not in {"cpu", "gpu"}
        for line in lines
    ]
    lines = (ROOT / "requirements" / f"{build}.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0]: line.split("==")[1] for line in lines if "==" in line}
    for requirement in map(Requirement, wanted):
        assert requirement.name in pinned, f"run scripts/lock.sh: {requirement} is not pinned"
        assert pinned[requirement.name] in requirement.specifier, requirement
