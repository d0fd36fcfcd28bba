"""The house: imports go down, modules stay small, importing is cheap."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from tests.running import run_python

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "opslib").rglob("*.py"))
FLOORS = {
    "core": 0,
    "inference": 1,
    "telling": 2,
    "timing": 2,
    "serving": 3,
    "runs": 3,
    "ops.bench": 4,
    "ops.trends": 4,
    "ops.sweep": 5,
    "ops.quantize": 5,
    "ops.release": 6,
    "ops.served_sweep": 6,
    "ops.drill": 7,
    "upkeep": 7,
    "ops.checklist": 8,
    "ops.fleet": 9,
    "ops.acceptance": 9,
    "demo": 9,
    "cli": 10,
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str | None:
    parts = module.split(".")[1:]
    if not parts or parts == ["ops"]:
        return None
    return ".".join(parts[:2]) if parts[0] == "ops" else parts[0]


def read_imports() -> dict[str, set[str]]:
    """Each module of the library, and those of the library that it imports anywhere in it."""
    modules = {name_of(path): path for path in MODULES}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {node.module or "", *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
        found[module] = (names & modules.keys()) - {module}
    return found


def test_imports_go_down() -> None:
    wrong = []
    for module, imported in read_imports().items():
        own = room(module)
        if module == "opslib.ops":
            continue  # the registry names every operation, so that `runs` need not
        for other in {room(one) for one in imported} - {None, own}:
            if own is None or FLOORS[str(other)] >= FLOORS[own]:
                wrong.append(f"{module} imports {other}")
            if other == "demo" and own != "cli":
                wrong.append(f"{module} imports demo")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = read_imports()
    while free := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in free}
    assert not left, sorted(left)


def test_modules_have_one_job_and_stay_under_400_lines() -> None:
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        assert ast.get_docstring(ast.parse(text)), path


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
    heavy |= {"fsspec", "s3fs", "botocore", "boto3", "sshfs", "asyncssh", "cryptography"}
    modules = ("core.config", "core.plans", "core.models", "telling.doors", "runs.desk_command")
    assert not loaded_by(f"import {', '.join(f'opslib.{one}' for one in modules)}") & heavy


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


def test_every_package_of_the_lock_takes_the_python_of_debian_12() -> None:
    from packaging.specifiers import SpecifierSet

    asked = {name: metadata.metadata(name)["Requires-Python"] for name in pins("requirements.txt")}
    refused = {
        name: one for name, one in asked.items() if one and "3.11.2" not in SpecifierSet(one)
    }
    assert not refused


def test_the_lock_pins_torch_alone_and_names_no_address() -> None:
    peers = (f"benchmarks/requirements-{name}.txt" for name in ("otava", "peers"))
    lint = "fleet/requirements-lint.txt"
    ours = ("requirements.txt", *(f"requirements-{name}.txt" for name in ("s3", "sftp", "dev")))
    for name in (*ours, lint, *peers):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--hash" not in text
        assert "nvidia-" not in text.replace("nvidia-ml-py", "")  # BentoML's, without CUDA
    assert pins("requirements.txt")["torch"] == "2.13.0"


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_store_in_the_field_is_reached_by_what_its_tests_run(kind: str) -> None:
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = wanted(project["optional-dependencies"][kind])
    locked, tested = pins(f"requirements-{kind}.txt"), pins("requirements-dev.txt")
    assert locked.items() <= tested.items()
    assert not locked.keys() & pins("requirements.txt").keys()
    for name, specifier in extra.items():
        assert locked[name] in SpecifierSet(specifier), name


def test_playbooks_are_checked_with_the_ansible_that_runs_them() -> None:
    ours, theirs = pins("requirements-dev.txt"), pins("fleet/requirements-lint.txt")
    assert theirs["ansible-core"] == ours["ansible-core"]


def test_peers_run_what_ours_runs() -> None:
    ours, theirs = pins("requirements.txt"), pins("benchmarks/requirements-peers.txt")
    ours["onnxruntime"] = ours["onnxruntime-gpu"]
    shared = ("onnxruntime", "numpy", "pillow", "fastapi", "starlette", "uvicorn", "httptools")
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


def test_scripts_are_executable_and_answer_to_help() -> None:
    for script in sorted((ROOT / "scripts").glob("*.py")):
        assert os.access(script, os.X_OK), script
        answer = run_python([sys.executable, script, "--help"], check=True)
        assert "--config" in answer.stdout
