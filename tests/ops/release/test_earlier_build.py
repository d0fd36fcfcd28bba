"""What the build before kinds of models left: its configuration, state and release."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.kinds import list_kinds
from opslib.core.served import ServedState
from opslib.ops.release.manifest import Manifest
from opslib.ops.release.restore import restore_release
from opslib.ops.release.store import list_releases
from opslib.ops.release.verify import verify_release
from tests.models import write_config

LEFT = Path(__file__).parents[2] / "cases" / "earlier_build"
(ARCHIVE,) = LEFT.glob("*.tar.gz")


def test_its_configuration_has_one_kind_of_every_export(tmp_path: Path) -> None:
    shutil.copy(LEFT / "config.yaml", tmp_path)
    (kind,) = list_kinds(load_config(tmp_path / "config.yaml", {}))
    assert (kind.pattern, kind.link, kind.pin, kind.keep) == (
        "*.onnx",
        "latest.onnx",
        "MODEL_PATH",
        5,
    )


@pytest.mark.parametrize(
    ("name", "record"),
    [("served.json", ServedState), (f"{ARCHIVE.name[:-7]}.manifest.json", Manifest)],
)
def test_its_records_are_read_and_would_be_written_byte_for_byte(
    name: str, record: type[ServedState] | type[Manifest]
) -> None:
    path = LEFT / name
    assert record.read(path).to_json().encode() == path.read_bytes()


def test_its_release_is_listed_verified_and_restored(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), {})
    config.releases_dir.mkdir(parents=True)
    for path in LEFT.glob("release-*"):
        shutil.copy(path, config.releases_dir)
    (stored,) = list_releases(config)
    assert len(verify_release(stored.path, config=config).models) == 2
    restored = tmp_path / "restored"
    restore_release(stored.path, restored, config=config)
    assert (restored / "export" / "latest.onnx").resolve().name == "model-b.onnx"
