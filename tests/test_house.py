"""The order of the house: who may import whom, names, sizes, and what no file may say."""

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

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rlrt"
SCRIPTS = ROOT / "scripts"

FLOORS = (
    {"allocator", "batch", "errors", "files", "hub", "distributed", "seeds"}
    | {"bootstrap", "pass_at_k"},
    {"loss"},
    {"model"},
    {"data", "context", "engine", "reward", "credit", "records"},
    {"analysis"},
    {"training"},
    {"config"},
    {"evaluation"},
    {"train", "eval"},
)
FLOOR_OF_ROOM = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ENTRIES = FLOORS[-3] | FLOORS[-2] | FLOORS[-1]

# Sizes past the limit, each with its reason: {"src/rlrt/room/file.py": "why"} for a file,
# {"src/rlrt/room/file.py:name": "why"} for a function or a constructor.
LARGE: dict[str, str] = {}
FILE_LINES, FUNCTION_LINES, CONSTRUCTOR_ARGUMENTS = 500, 60, 12


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """The first word below rlrt: a folder's name or a module's."""
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
    """Imports of rooms that are neither on a lower floor nor the file's own."""
    here = room_of(path)
    rooms = [name.split(".")[1] for name in imports_of(path) if name.startswith("rlrt.")]
    return [room for room in rooms if room != here and FLOOR_OF_ROOM[room] >= FLOOR_OF_ROOM[here]]


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in python_files(SOURCE)} - {"__init__"}
    assert rooms <= FLOOR_OF_ROOM.keys()


def test_files_import_only_lower_floors_and_their_own_folder() -> None:
    files = [path for path in python_files(SOURCE) if room_of(path) != "__init__"]
    found = {name_of(path): forbidden_imports(path) for path in files}
    assert not {name: rooms for name, rooms in found.items() if rooms}


def test_one_file_alone_imports_vllm() -> None:
    assert importers("vllm", SOURCE, SCRIPTS) <= {SOURCE / "engine" / "vllm_engine.py"}


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_lightning_is_known_to_the_data_module_training_and_the_entries(package: str) -> None:
    outside = {
        name_of(path)
        for path in importers(package, SOURCE) - {SOURCE / "data" / "module.py"}
        if room_of(path) not in {"training", *ENTRIES}
    }
    assert not outside


@pytest.mark.parametrize("package", ["hydra", "omegaconf"])
def test_hydra_is_known_to_the_entries(package: str) -> None:
    outside = {name_of(path) for path in importers(package, SOURCE) if room_of(path) not in ENTRIES}
    assert not outside


def test_rooms_shadow_no_other_package() -> None:
    """`python src/rlrt/train.py` puts src/rlrt first on the path, before everything installed."""
    rooms = {room_of(path) for path in python_files(SOURCE)} - {"__init__"}
    installed = {
        name for name, owners in packages_distributions().items() if set(owners) != {"rlrt"}
    }
    assert not rooms & (installed | sys.stdlib_module_names)
    assert "utils" not in rooms


def oversized(path: Path) -> Iterator[tuple[str, str]]:
    """Name and finding of a file that is too long, and of its functions and constructors."""
    text = path.read_text(encoding="utf-8")
    if (length := len(text.splitlines())) > FILE_LINES:
        yield name_of(path), f"{length} lines"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        where = f"{name_of(path)}:{node.name}"
        if (length := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
            yield where, f"{length} lines"
        count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1  # self
        if node.name == "__init__" and count > CONSTRUCTOR_ARGUMENTS:
            yield where, f"{count} arguments"


def test_files_functions_and_constructors_are_small() -> None:
    files = python_files(SOURCE, SCRIPTS, ROOT / "bench")
    found = [finding for path in files for finding in oversized(path)]
    assert not [finding for finding in found if finding[0] not in LARGE]
    assert LARGE.keys() <= {where for where, _ in found}, "an exception that nothing needs"


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
