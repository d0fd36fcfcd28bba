"""H-2: `scripts/backup_release.sh`, the named door to a release, prints a path and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.ops.release.conftest import make_experiment

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "backup_release.sh"


def run(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PILLSNAP_PYTHON": python},
        timeout=60,
    )


def test_the_script_is_executable_strict_and_thin() -> None:
    text = SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
    assert "set -euo pipefail" in text
    assert len(text.splitlines()) < 25
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


def test_stdout_is_the_path_of_a_whole_release_and_nothing_else(tmp_path: Path) -> None:
    place = make_experiment(tmp_path)
    answer = run("--config", str(place.config_path))
    assert answer.returncode == 0, answer.stderr
    path = Path(answer.stdout.removesuffix("\n"))
    assert path.parent == place.config.releases_dir
    subprocess.run(["sha256sum", "-c", f"{path.name}.sha256"], cwd=path.parent, check=True)
    only = run("--config", str(place.config_path), "--onnx", str(place.first), "--only")
    assert only.returncode == 0, only.stderr
    listed = subprocess.run(
        ["tar", "tzf", only.stdout.strip()], capture_output=True, text=True, check=True
    )
    assert "export/model-a.onnx" in listed.stdout.splitlines()
    assert "model-b" not in listed.stdout


def test_a_failure_prints_no_path_and_says_why(tmp_path: Path) -> None:
    place = make_experiment(tmp_path)
    place.second.unlink()
    answer = run("--config", str(place.config_path))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "latest.onnx: points at model-b.onnx, which is not there" in answer.stderr


def test_without_a_python_it_says_what_to_do(tmp_path: Path) -> None:
    answer = run(python=str(tmp_path / "none"))
    assert answer.returncode == 2
    assert "make demo" in answer.stderr
