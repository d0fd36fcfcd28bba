"""Write the lock files, requirements*.txt: every package as one fresh install has it.

torch is pinned without its own dependencies: which CUDA libraries it brings depends on the build
that a machine installs, so pip resolves them there.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BROUGHT_BY_TORCH = re.compile(r"^(nvidia-|cuda-|triton)", re.IGNORECASE)
HEAD = "# Written by `make lock` from pyproject.toml; edit that file, not this one.\n"


def freeze(python: Path) -> dict[str, str]:
    """Return the installed packages and their versions, local version labels cut off."""
    command = [python, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    pins = dict(line.split("==") for line in lines if "==" in line)
    return {
        name: version.partition("+")[0]
        for name, version in pins.items()
        if not BROUGHT_BY_TORCH.match(name) and name not in ("pip", "wheel")
    }


def main() -> None:
    """Install the abstract dependencies, then `s3`, then `dev`, and write what came each time."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin/python"
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *project["dependencies"], *build], check=True)
        runtime = freeze(python)
        subprocess.run([*install, *project["optional-dependencies"]["s3"]], check=True)
        with_s3 = freeze(python)
        subprocess.run([*install, *project["optional-dependencies"]["dev"]], check=True)
        everything = freeze(python)
    write("requirements.txt", "", runtime)
    for name, pins in (("requirements-s3.txt", with_s3), ("requirements-dev.txt", everything)):
        added = {one: version for one, version in pins.items() if one not in runtime}
        write(name, "-r requirements.txt\n", added)


def write(name: str, first: str, pins: dict[str, str]) -> None:
    """Write one lock file, sorted."""
    lines = [f"{package}=={pins[package]}\n" for package in sorted(pins, key=str.lower)]
    (ROOT / name).write_text(HEAD + first + "".join(lines))


if __name__ == "__main__":
    main()
