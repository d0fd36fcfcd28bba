"""An experiment that releases can be made from, and releases of it at chosen times."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.config import Config
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import StoredRelease, find_release
from tests.serving.conftest import Place, make_place

FIRST_SECOND = 1_790_000_000
WEEK_S = 7 * 86_400


def make_releasable(folder: Path, extra: str = "") -> Place:
    """Build an experiment with two models and everything that a release wants."""
    place = make_place(folder, extra)
    (folder / ".env.example").write_text("API_KEY=\nMODEL_PATH=\n")
    metrics = place.config.records_dir / "metrics.json"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text('{"top1": 0.95}\n')
    report = place.export / "export_report.json"
    report.write_bytes(place.second.with_suffix(".json").read_bytes())
    return place


def release(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    week: int = 0,
    *,
    onnx: Path | None = None,
    only: bool = False,
) -> StoredRelease:
    """Make a release as of a week, without the checks that making one ends with."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(FIRST_SECOND + week * WEEK_S))
    request = ReleaseRequest(onnx=onnx, only=only, verify=False)
    return find_release(config, build_release(config, request).path)


def flip_byte(path: Path, at: float = 0.5) -> None:
    """Change one byte of a file, at a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x55
    path.write_bytes(data)
