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
    """Install the abstract dependencies, then each extra by itself, and write what came."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin/python"
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *project["dependencies"], *build], check=True)
        runtime = freeze(python)
        extras = {}
        for name in ("s3", "sftp", "dev"):
            subprocess.run([*install, *project["optional-dependencies"][name]], check=True)
            extras[name] = {k: v for k, v in freeze(python).items() if k not in runtime}
            subprocess.run([*install[:3], "uninstall", "-q", "-y", *extras[name]], check=True)
    write("requirements.txt", "", runtime)
    for name, pins in extras.items():
        write(f"requirements-{name}.txt", "-r requirements.txt\n", pins)


def write(name: str, first: str, pins: dict[str, str]) -> None:
    """Write one lock file, sorted."""
    lines = [f"{package}=={pins[package]}\n" for package in sorted(pins, key=str.lower)]
    (ROOT / name).write_text(HEAD + first + "".join(lines))


if __name__ == "__main__":
    main()
