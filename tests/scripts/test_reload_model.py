"""The named door `scripts/reload_model.sh`, and the commands beside it, against a real service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.running import run_python
from tests.serving.conftest import Live, make_place, open_live

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "reload_model.sh"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose key lies in the `.env` beside its configuration."""
    place = make_place(tmp_path_factory.mktemp("staged"))
    key = make_key()
    place.config_path.with_name(".env").write_text(f"API_KEY={key}\nMODEL_PATH=\n")
    variables = {"RATE_LIMIT_PER_MIN": "1000000", "API_KEY": key}
    with start_service(place.config_path, variables=variables) as service:
        running = open_live(service, place)
        yield running
        running.client.close()


def call(staged: Live, *arguments: str, script: bool = True) -> subprocess.CompletedProcess[str]:
    door = [str(SCRIPT)] if script else [sys.executable, "-m", "opslib.cli"]
    config = ["--config", str(staged.place.config_path)]
    environment = {k: v for k, v in os.environ.items() if k != "API_KEY"}
    return subprocess.run(
        [*door, *arguments, *config],
        capture_output=True,
        text=True,
        env=environment | ({"PILLSNAP_PYTHON": sys.executable} if script else {}),
        timeout=60,
        check=False,
    )


def test_the_script_is_executable_strict_and_thin() -> None:
    text = SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
    assert "set -euo pipefail" in text
    assert len(text.splitlines()) < 25
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


def test_it_switches_and_shows_both_versions(staged: Live) -> None:
    staged.reload(staged.place.second)
    answer = call(staged, "--path", str(staged.place.first), "--host", staged.service.url)
    assert answer.returncode == 0, answer.stderr
    assert "before model-b" in answer.stdout
    assert "after  model-a" in answer.stdout
    assert staged.version["version_tag"] == "model-a"
    assert staged.service.key not in answer.stdout + answer.stderr


def test_a_failure_prints_status_body_stage_and_hint(staged: Live) -> None:
    before = staged.version
    answer = call(staged, "--path", "/no/such/model.onnx", "--host", staged.service.url)
    assert answer.returncode == 1
    assert "400" in answer.stderr
    assert "model_refused" in answer.stderr
    assert "stage path; the previous model serves on" in answer.stdout
    assert "hint: " in answer.stdout
    assert staged.version == before


def test_a_pinned_model_is_warned_about_and_persist_updates_it(staged: Live) -> None:
    env = staged.place.config_path.with_name(".env")
    kept = env.read_text()
    env.write_text(kept.replace("MODEL_PATH=", f"MODEL_PATH={staged.place.second}"))
    path, host = str(staged.place.first), staged.service.url
    warned = call(staged, "--path", path, "--host", host)
    assert "a restart brings that one back" in warned.stdout
    updated = call(staged, "--path", path, "--host", host, "--persist")
    assert updated.returncode == 0
    assert f"MODEL_PATH={path}\n" in env.read_text()
    env.write_text(kept)


def test_without_a_python_it_says_what_to_do(tmp_path: Path) -> None:
    environment = os.environ | {"PILLSNAP_PYTHON": str(tmp_path / "none")}
    answer = subprocess.run(
        [SCRIPT, "--path", "x"], capture_output=True, text=True, env=environment, check=False
    )
    assert answer.returncode == 2
    assert "make demo" in answer.stderr


def test_a_rollback_shows_its_plan_and_does_it(staged: Live) -> None:
    staged.reload(staged.place.first)
    staged.reload(staged.place.second)
    host = ["--host", staged.service.url]
    planned = call(staged, "rollback", "--dry-run", *host, script=False)
    assert planned.returncode == 0, planned.stderr
    assert "model-a.onnx" in planned.stdout
    assert "dry run" in planned.stdout
    assert staged.version["version_tag"] == "model-b"
    done = call(staged, "rollback", *host, script=False)
    assert done.returncode == 0, done.stderr
    assert staged.version["version_tag"] == "model-a"


def test_a_key_is_rotated_without_being_shown(tmp_path: Path, staged: Live) -> None:
    env = tmp_path / ".env"
    env.write_text(f"API_KEY={staged.service.key}\n")
    answer = call(staged, "key", "rotate", "--env-file", str(env), script=False)
    new = env.read_text().split("API_KEY=")[-1].strip()
    assert answer.returncode == 0, answer.stderr
    assert "restart the service" in answer.stdout
    assert new != staged.service.key
    assert new not in answer.stdout + answer.stderr


def test_a_service_with_a_weak_key_does_not_start(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    place.config_path.with_name(".env").write_text("API_KEY=changeme\n")
    answer = run_python(
        [sys.executable, "-m", "opslib.cli", "serve", "--config", place.config_path],
        env={k: v for k, v in os.environ.items() if k != "API_KEY"},
    )
    assert answer.returncode == 2
    assert "openssl rand -hex 32" in answer.stderr
    assert "changeme" not in answer.stderr
