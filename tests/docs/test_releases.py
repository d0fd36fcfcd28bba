"""H-9: every command on releases in docs/ROLLBACK.md is executed; its remedies help."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.upkeep_sections import ReleaseSection
from opslib.ops.release.store import list_releases
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.docs.commands import (
    clean_environment,
    make_doors,
    read_parts,
    run_script,
    serve_until_ready,
)
from tests.ops.release.restoring import flip_byte, make_releasable
from tests.serving.conftest import Live, open_live

SECTION = read_parts("ROLLBACK.md", "Releases")
ELSEWHERE = {".venv/bin/pillops run 04_release": "tests/notebooks/test_release.py"}


def find_commands() -> list[str]:
    """The lines of the section's `sh` blocks, each once, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTION, flags=re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A folder laid out like a checkout, a running service, one release and a copy of it."""
    folder = tmp_path_factory.mktemp("checkout")
    place = make_releasable(folder)
    key = make_key()
    (folder / ".env").write_text(f"API_KEY={key}\n")
    make_doors(folder)
    (folder / "backup").mkdir()
    variables = {"RATE_LIMIT_PER_MIN": "100000", "API_KEY": key}
    with start_service(place.config_path, variables=variables) as service:
        text = place.config_path.read_text()
        place.config_path.write_text(f"{text}client: {{url: '{service.url}'}}\n")
        running = open_live(service, place)
        assert run(running, ".venv/bin/pillops release create --copy-to backup").returncode == 0
        assert run(running, '.venv/bin/pillops release copy --copy-to "$STORE"').returncode == 0
        yield running
        running.client.close()


def newest(checkout: Live) -> str:
    """The name of the release that the commands are about: one that has a second copy."""
    copies = checkout.place.config_path.parent / "backup"
    return max(path.name.removesuffix(".tar.gz") for path in copies.glob("*.tar.gz"))


def run(checkout: Live, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell in the checkout would, the key loaded from `.env`."""
    folder = checkout.place.config_path.parent
    environment = clean_environment(
        URL=checkout.service.url,
        EXP_DIR=str(checkout.place.config.exp_dir),
        BACKUP_DIR=str(folder / "backup"),
        STORE=f"file://{folder}/store",
        **variables,
    )
    if command.endswith("pillops serve"):
        return serve_until_ready(f"{command} --port 0", folder, environment)
    return run_script(command, folder, environment)


def restored_model(checkout: Live) -> Path:
    """The model that restoring the release gives, restored if it is not."""
    config, name = checkout.place.config, newest(checkout)
    if not (config.restore_dir / name).exists():
        done = run(checkout, f".venv/bin/pillops release restore {name}")
        assert done.returncode == 0, done.stderr
    return config.restore_dir / name / "export" / "model-b.onnx"


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_guide_works(checkout: Live, command: str) -> None:
    if command in ELSEWHERE:
        pytest.skip(f"executed elsewhere: {ELSEWHERE[command]}")
    env = checkout.place.config_path.with_name(".env")
    kept = env.read_text()
    checkout.reload(checkout.place.second)
    if "$RESTORED_MODEL" in command:
        restored_model(checkout)
    elif "release restore" in command:
        shutil.rmtree(checkout.place.config.restore_dir, ignore_errors=True)
    model = checkout.place.config.restore_dir / newest(checkout) / "export" / "model-b.onnx"
    answer = run(checkout, command, RELEASE=newest(checkout), RESTORED_MODEL=str(model))
    env.write_text(kept)
    if command.endswith("pillops serve"):
        assert f"serving {model.stem}" in answer.stderr
    else:
        assert answer.returncode == 0, answer.stdout + answer.stderr
    if "--turns" in command:
        for stored in list_releases(checkout.place.config):
            assert f"{stored.name} restores" in answer.stdout
    assert checkout.service.key not in answer.stdout + answer.stderr


def test_all_that_an_operator_needs_is_in_the_guide() -> None:
    found = "\n".join(find_commands())
    for word in (
        "backup_release.sh",
        "release verify",
        "release restore",
        "reload_model.sh --path",
        "MODEL_PATH=",
        "/version",
        "rollback --dry-run",
        "release prove",
        "run 04_release",
        "verify --all --no-load",
        "prune --keep",
    ):
        assert word in found, word
    assert set(ELSEWHERE) <= set(find_commands())


def test_every_option_of_a_restore_test_is_in_the_guide() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "opslib.cli", "release", "prove", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    options = set(re.findall(r"^│ (--[a-z-]+)", answer.stdout, re.MULTILINE))
    assert {"--turns", "--json"} <= options
    for option in options - {"--help", "--config"}:
        assert option in SECTION, option


def test_the_path_of_a_new_release_can_be_caught_by_a_script(checkout: Live) -> None:
    command = re.findall(r"`(archive=[^`]+)`", SECTION)[0]
    answer = run(checkout, f'{command}; test -f "$archive"')
    assert answer.returncode == 0, answer.stderr


def test_every_key_is_in_the_document() -> None:
    for key in ReleaseSection.model_fields:
        assert f"release.{key}" in SECTION, key


def test_restore_prints_what_the_guide_calls_the_restored_model(checkout: Live) -> None:
    shutil.rmtree(checkout.place.config.restore_dir, ignore_errors=True)
    answer = run(checkout, f".venv/bin/pillops release restore {newest(checkout)}")
    printed = re.search(r"MODEL_PATH=(\S+)", answer.stdout)
    assert printed is not None
    assert Path(printed[1]) == restored_model(checkout)
    assert f"scripts/reload_model.sh --path {printed[1]}" in answer.stdout


def test_the_remedy_for_a_release_that_fails_to_verify_helps(checkout: Live) -> None:
    name = newest(checkout)
    flip_byte(checkout.place.config.releases_dir / f"{name}.tar.gz")
    verify = '.venv/bin/pillops release verify "$RELEASE"'
    broken = run(checkout, verify, RELEASE=name)
    assert broken.returncode == 3
    assert name in broken.stderr
    assert len(broken.stderr.strip().splitlines()[-1:]) == 1
    steps = [one for one in find_commands() if "$BACKUP_DIR" in one and "create" not in one]
    for step in steps:
        assert run(checkout, step, RELEASE=name).returncode == 0
    assert run(checkout, verify, RELEASE=name).returncode == 0
