"""A lock works whatever becomes of the note that says who holds it, and lies where nobody else
can have put anything."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from stat import S_IMODE

import pytest

from opslib.core.accounts import account_home, account_name
from opslib.core.errors import BusyError, StorageError
from opslib.core.locks import LOCK_DIR_VARIABLE, hold_lock, host_lock_path
from tests.accounts import GROUP, SERVICE, as_account, needs_root
from tests.models import write_config
from tests.running import run_python


def test_who_holds_a_lock_is_told_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    with (
        hold_lock(path, "the first"),
        pytest.raises(BusyError, match=r"the second: the lock is held by the first \(pid"),
        hold_lock(path, "the second"),
    ):
        pass
    with hold_lock(path, "the third"):
        assert path.read_text().startswith("the third (pid")
    assert path.read_text() == ""


def test_a_note_that_cannot_be_written_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with (
            hold_lock(path, "the first"),
            pytest.raises(BusyError, match="is held by another process"),
            hold_lock(path, "the second"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that everybody may write into, as `/tmp` is."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    for above in tmp_path.parents:
        if above.name.startswith(("pytest-", "popen-")):
            above.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.delenv(LOCK_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_the_folder_of_the_hosts_locks_is_this_accounts_alone(shared: Path) -> None:
    path = host_lock_path("timing")
    assert path == shared / f"pillops-{os.geteuid()}" / "timing.lock"
    assert S_IMODE(path.parent.stat().st_mode) == 0o700
    assert host_lock_path("timing") == path


@pytest.mark.parametrize("how", ["a link", "a file", "open to others", "another's"])
def test_a_lock_folder_that_somebody_else_made_is_refused_by_name(shared: Path, how: str) -> None:
    place, trap = shared / f"pillops-{os.geteuid()}", shared / "trap"
    trap.mkdir()
    if how == "a link":
        place.symlink_to(trap)
    elif how == "a file":
        place.touch()
    elif how == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif os.geteuid() == 0:
        place.mkdir(mode=0o700)
        os.chown(place, SERVICE, GROUP)
    else:
        pytest.skip("needs root to be two accounts")
    said = f"{place}: not a folder of .* alone, .*: .*; remove it, or .* {LOCK_DIR_VARIABLE}"
    with pytest.raises(StorageError, match=said):
        host_lock_path("timing")
    assert list(trap.iterdir()) == []


def test_the_command_line_says_it_in_one_line_and_writes_nothing(shared: Path) -> None:
    victim = shared / "victim"
    victim.mkdir(mode=0o700)
    (shared / f"pillops-{os.geteuid()}").symlink_to(victim)
    write_config(shared)
    (shared / "exp").mkdir()
    answer = run_python(
        [sys.executable, "-m", "opslib.cli", "schedule", "remove"],
        env=os.environ | {"PILLSNAP_CONFIG": str(shared / "config.yaml")},
    )
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert LOCK_DIR_VARIABLE in answer.stderr
    assert list(victim.iterdir()) == []


@needs_root
def test_an_account_without_a_name_locks_as_any_other(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def use() -> None:
        with hold_lock(host_lock_path("timing"), "a run"):
            raise RuntimeError(f"{account_name()}, at home in {account_home()}")

    assert as_account(use) == f"RuntimeError: uid {SERVICE}, at home in /"
    assert (shared / f"pillops-{SERVICE}" / "timing.lock").exists()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".a.lock").symlink_to(victim)
    with (
        pytest.raises(StorageError, match=r"cannot lock .*\.a\.lock"),
        hold_lock(tmp_path / ".a.lock", "a run"),
    ):
        pass
    assert victim.read_text() == "kept"
