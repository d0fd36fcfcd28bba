"""An account without an entry, as a container's number is, and a checkout of another account."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from stat import S_IMODE

import pytest

from opslib.core.accounts import make_own_folder
from opslib.core.config import load_config
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError, StorageError
from opslib.core.lineage import git_dirty, git_sha
from tests.models import write_config

NUMBER = "54321"
ALONE = ["unshare", "--user", f"--map-user={NUMBER}", f"--map-group={NUMBER}"]
DOCTOR = "import sys; sys.argv[1:] = ['doctor']; from opslib.cli import main; main()"


def is_possible() -> bool:
    """Whether this kernel lets a process be a number of which nobody knows."""
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_disk_too_full_for_a_temporary_folder_is_a_storage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", refuse)
    with pytest.raises(StorageError, match="make a folder for locks: No usable temporary"):
        make_own_folder("locks", "PILLOPS_LOCK_DIR")


@pytest.mark.skipif(not is_possible(), reason="no user namespaces here: `unshare --user`")
@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_number_without_a_name_and_a_home_ends_in_no_traceback(
    tmp_path: Path, home: str | None
) -> None:
    write_config(tmp_path)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    told = subprocess.run(
        [*ALONE, sys.executable, "-c", DOCTOR],
        cwd=tmp_path,
        env=variables | ({"HOME": home} if home else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in told.stderr
    assert "experiment at" in told.stdout


@pytest.mark.skipif(not is_possible(), reason="no user namespaces here: `unshare --user`")
@pytest.mark.parametrize("home", [None, "", "/"])
def test_a_number_without_a_home_gets_a_folder_of_its_own(tmp_path: Path, home: str | None) -> None:
    write_config(tmp_path)
    show = "import os; from opslib.telling.doors import run_door\n"
    show += "run_door(lambda: print(os.environ['HOME']))"
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "TMPDIR": str(tmp_path),
    }
    told = subprocess.run(
        [*ALONE, sys.executable, "-c", show],
        cwd=tmp_path,
        env=variables | ({} if home is None else {"HOME": home}),
        capture_output=True,
        text=True,
        check=False,
    )
    own = tmp_path / f"pillops-{NUMBER}"
    assert told.stdout.strip() == str(own)
    assert S_IMODE(own.stat().st_mode) == 0o700


def test_a_checkout_that_git_calls_dubious_is_known_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    told = subprocess.run(
        ["git", "-C", str(tmp_path), "status"], capture_output=True, text=True, check=False
    )
    if told.returncode == 0:
        pytest.skip("this git asks nobody whose a checkout is")
    assert len(git_sha(tmp_path)) == 7
    assert git_dirty(tmp_path) is None  # that would run its filters


def test_a_file_of_variables_in_another_encoding_is_named(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), {})
    other = tmp_path / "other.env"
    other.write_bytes("# \ud55c\uae00\nAPI_KEY=x\n".encode("cp949"))
    with pytest.raises(
        ConfigError, match=r"other\.env: cannot be read: not UTF-8 text; save it as UTF-8"
    ):
        load_service_environment(config, other)
