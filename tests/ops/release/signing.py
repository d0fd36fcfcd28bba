"""Keys to sign releases with, lists of who may, and releases that were signed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path, manifest_path, signature_path
from opslib.ops.release.request import ReleaseRequest
from tests.ops.release.restoring import FIRST_SECOND, WEEK_S
from tests.serving.conftest import Place

WHO = "alice@example.com"
PARTS = ("archive", "checksum", "manifest", "signature")


def make_key(path: Path, passphrase: str = "") -> Path:
    """Make an Ed25519 key and return the path of its private half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", path]
    subprocess.run(command, check=True)
    return path


def public(key: Path) -> str:
    """The public half of a key, on one line."""
    return key.with_name(f"{key.name}.pub").read_text().strip()


def allow(path: Path, key: Path, options: str = "", who: str = WHO) -> Path:
    """Write a list of signers that has one key alone, and return its path."""
    path.write_text(f"{who} {options}{' ' if options else ''}{public(key)}\n")
    return path


def revoke(path: Path, key: Path) -> Path:
    """Write a list of revoked keys that has one key alone, and return its path."""
    command = ["ssh-keygen", "-q", "-k", "-f", path, key.with_name(f"{key.name}.pub")]
    subprocess.run(command, check=True)
    return path


def with_lists(place: Place, signers: Path | None, revoked: Path | None = None) -> Config:
    """The configuration of an experiment whose releases must be signed."""
    given = {"ALLOWED_SIGNERS": signers, "REVOKED_KEYS": revoked}
    return load_config(
        place.config_path,
        {f"PILLSNAP_RELEASE__{name}": str(path) for name, path in given.items() if path},
    )


def release_signed(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    key: Path | None,
    week: int = 0,
    *,
    onnx: Path | None = None,
) -> ReleaseRecord:
    """Make a release as of a week, signed with a key, and return its record."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(FIRST_SECOND + week * WEEK_S))
    request = ReleaseRequest(onnx, sign=key, load_models=False, allow_missing_metrics=True)
    return build_release(place.config, request)


@dataclass(frozen=True)
class Files:
    """The files of a release."""

    archive: Path

    def part(self, name: str) -> Path:
        """One of `PARTS`."""
        makers = {
            "checksum": checksum_path,
            "manifest": manifest_path,
            "signature": signature_path,
        }
        return makers[name](self.archive) if name in makers else self.archive

    def copy_to(self, folder: Path) -> Files:
        """Copy all that there is of it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        copied = Files(folder / self.archive.name)
        for name in PARTS:
            if self.part(name).exists():
                shutil.copy(self.part(name), copied.part(name))
        return copied

    def take(self, name: str, other: Files) -> None:
        """Replace a part by another release's, whose checksum then names this one's archive."""
        data = other.part(name).read_bytes()
        if name == "checksum":
            data = data.replace(other.archive.name.encode(), self.archive.name.encode())
        self.part(name).write_bytes(data)
