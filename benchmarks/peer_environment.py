"""Environments of their own for the programs that ours are held against."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path


def find_python(lock: Path, size: str) -> Path | None:
    """Return the interpreter of an environment that holds what `lock` pins, below the one that runs
    this; it is made where it is missing and kept until the lock changes. None where it cannot be
    installed, after a line that says so. `size` is what an installation takes, in words."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    name = lock.stem.removeprefix("requirements-")
    folder = Path(sys.prefix) / f"{name}-{digest}"
    python, complete = folder / "bin/python", folder / "complete"
    if complete.exists():
        return python
    for old in folder.parent.glob(f"{name}-*"):
        shutil.rmtree(old)
    print(f"installing {lock.name} into {folder} ({size}) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run([*install, "--requirement", lock], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"pip ended with {done.returncode}"]
        print(f"{lock.name} could not be installed: {said[0]}", flush=True)
        return None
    complete.touch()
    return python
