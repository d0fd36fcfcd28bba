"""The house: imports go down, modules stay small, importing is cheap."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "opslib").rglob("*.py"))
FLOORS = {
    "core": 0,
    "inference": 1,
    "measure": 2,
    "serving": 3,
    "release": 4,
    "drill": 5,
    "upkeep": 5,
    "reporting": 6,
    "checklist": 7,
    "demo": 7,
    "cli": 8,
}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "opslib" and len(parts) > 1 else None


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name for name in map(room, names) if name}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    if path.parent.name == "opslib":
        assert not imported_rooms(path)
        return
    own = path.relative_to(ROOT / "opslib").parts[0]
    for other in imported_rooms(path) - {own}:
        assert FLOORS[other] < FLOORS[own], f"{own} imports {other}"
        assert not (other == "demo" and own != "cli"), f"{own} imports demo"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_have_one_job_and_stay_under_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert ast.get_docstring(ast.parse(path.read_text()))


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


def test_importing_the_library_loads_nothing_heavy() -> None:
    heavy = {"torch", "onnxruntime", "pandas", "matplotlib", "numpy", "scipy", "papermill"}
    assert not loaded_by("import opslib") & heavy


def test_the_ground_floor_and_the_doors_load_nothing_heavy() -> None:
    heavy = {"torch", "onnxruntime", "pandas", "matplotlib", "numpy", "scipy", "papermill"}
    statement = "import opslib.core.config, opslib.core.plans, opslib.core.models, opslib.cli.doors"
    assert not loaded_by(statement) & heavy


def normalise(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith(("#", "-"))]
    return {normalise(line.split("==")[0]): line.split("==")[1] for line in entries}


def wanted(entries: list[str]) -> dict[str, str]:
    from packaging.requirements import Requirement

    return {normalise(Requirement(one).name): str(Requirement(one).specifier) for one in entries}


def test_the_three_doors_ask_for_the_same_packages() -> None:
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = wanted(project["dependencies"])
    everything = runtime | wanted(project["optional-dependencies"]["dev"])
    locked = pins("requirements.txt")
    for name, specifier in everything.items():
        version = (locked | pins("requirements-dev.txt"))[name]
        assert version in SpecifierSet(specifier), name
    assert runtime.keys() <= locked.keys()
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda[-1]["pip"][0] == "-r requirements.txt"
    python = next(one for one in conda if isinstance(one, str) and one.startswith("python="))
    assert python.removeprefix("python=") in SpecifierSet(project["requires-python"])


def test_the_lock_pins_torch_alone_and_names_no_address() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--hash" not in text
        assert "nvidia-" not in text
    assert pins("requirements.txt")["torch"] == "2.13.0"


def test_scripts_are_executable_and_answer_to_help() -> None:
    for script in sorted((ROOT / "scripts").glob("*.py")):
        assert os.access(script, os.X_OK), script
        answer = subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, check=True
        )
        assert "--config" in answer.stdout
