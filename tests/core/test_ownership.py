"""What root makes or replaces stays with the account that has to use it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE

import pytest

from opslib.core.config import load_config
from opslib.core.config_edit import set_keys
from opslib.core.files import ensure_writable, write_text_atomic
from opslib.core.locks import hold_lock
from opslib.core.served import ServedModel, keep_served, served_state_path
from opslib.ops.release.store import PINS_NAME, Pins
from opslib.serving.dotenv import set_variable
from opslib.serving.keys import rotate_key
from opslib.serving.logs import AccessLog, open_logs
from opslib.upkeep.crontab import keep_backup
from opslib.upkeep.job_status import JobStatus, status_path
from tests.accounts import GROUP, SERVICE, as_account, needs_root
from tests.models import write_config

pytestmark = needs_root
MODEL = ServedModel(
    path=Path("/m.onnx"), sha256="a", version_tag="v", generation=1, switched_at_utc="2026-11-01"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configured experiment that belongs to the service's account."""
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    write_config(tmp_path, "bench: {seed: 1}\n")
    (tmp_path / "exp").mkdir()
    (tmp_path / ".env").write_text("API_KEY=old\n")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, SERVICE, GROUP)
    return tmp_path


def whose(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, S_IMODE(found.st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_rotation_as_root_leaves_the_key_with_the_service(home: Path, mode: int) -> None:
    (home / ".env").chmod(mode)
    rotate_key(home / ".env")
    assert whose(home / ".env") == (SERVICE, GROUP, mode)
    assert as_account(lambda: (home / ".env").read_text()) == ""


def test_a_new_setting_by_root_leaves_the_configuration_with_the_service(home: Path) -> None:
    (home / "config.yaml").chmod(0o600)
    set_keys(home / "config.yaml", {"bench.seed": 2})
    assert whose(home / "config.yaml") == (SERVICE, GROUP, 0o600)


def test_a_first_key_by_root_is_for_the_service(home: Path) -> None:
    (home / ".env").unlink()
    set_variable(home / ".env", "API_KEY", "x")
    assert whose(home / ".env") == (SERVICE, GROUP, 0o600)


def test_what_root_makes_in_the_experiment_the_service_can_go_on_with(home: Path) -> None:
    config = load_config(home / "config.yaml", {})
    status = JobStatus(job="index", pid=1, started_at_utc="2026-11-01T00:00:00+00:00")
    lock, log = config.exp_dir / "locks" / ".a.lock", config.logs_dir / "api.out"

    def use() -> None:
        keep_served(config, MODEL)
        Pins(names=()).write(config.releases_dir / PINS_NAME)
        status.write(status_path(config, "index"))
        with hold_lock(lock, "a run"):
            pass
        AccessLog(log, ()).close()
        open_logs(config.logs_dir, "INFO", (), console=False)
        ensure_writable(config.restore_dir)

    use()
    made = list(config.exp_dir.rglob("*"))
    assert {served_state_path(config), lock, log, config.logs_dir / "api.err"} <= set(made)
    assert {whose(path)[:2] for path in made} == {(SERVICE, GROUP)}
    assert as_account(use) == ""


def test_a_lock_that_root_made_earlier_is_locked_by_reading_it(home: Path) -> None:
    lock = home / "exp" / ".a.lock"
    lock.touch(mode=0o644)

    def take() -> None:
        with hold_lock(lock, "the second"):
            pass

    assert as_account(take) == ""
    with hold_lock(lock, "the first"):
        assert "BusyError: the second: the lock is held by the first (pid" in as_account(take)


def test_a_backup_of_roots_crontab_is_not_for_the_service(home: Path) -> None:
    backup = keep_backup(home / "exp" / "logs", "0 1 * * * true # secret\n")
    assert whose(backup) == (0, 0, 0o600)
    assert "PermissionError" in as_account(lambda: backup.read_text())


@pytest.mark.parametrize(
    "change",
    [
        lambda home: rotate_key(home / ".env"),
        lambda home: set_keys(home / "config.yaml", {"bench.seed": 2}),
    ],
)
def test_who_would_take_a_file_from_its_owner_is_told_whose_it_is(
    home: Path, change: Callable[[Path], object]
) -> None:
    home.chmod(0o777)
    for name in (".env", "config.yaml"):
        (home / name).chmod(0o644)
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    said = as_account(lambda: change(home), uid=SERVICE + 1)
    assert said.startswith("StorageError: cannot write ")
    assert f"it would no longer belong to uid {SERVICE} (group {GROUP})" in said
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before


def test_others_may_replace_what_is_made_anew_and_keep_its_group(home: Path) -> None:
    path = home / "index.html"
    path.write_text("old")
    os.chown(path, SERVICE, GROUP)
    home.chmod(0o777)
    assert as_account(lambda: write_text_atomic(path, "new"), uid=SERVICE + 1) == ""
    assert whose(path) == (SERVICE + 1, GROUP, 0o644)
