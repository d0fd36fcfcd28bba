"""The release that a report is about: one made now, or one that is there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import OpsError
from opslib.ops.release.build import ReleaseRecord, ReleaseRequest, build_release
from opslib.ops.release.copy import copy_release
from opslib.ops.release.manifest import Manifest
from opslib.ops.release.store import StoredRelease, find_release, list_releases
from opslib.ops.release.verify import VerifyRecord


@dataclass(frozen=True)
class Subject:
    """A release; `made` says how, if it was made now, and `copied` is its verified second copy.

    A dry run that found no release has none.
    """

    stored: StoredRelease | None
    manifest: Manifest | None
    made: ReleaseRecord | None = None
    copied: VerifyRecord | None = None

    @property
    def name(self) -> str:
        """The release's name."""
        return self.stored.name if self.stored else "no release"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted when it was made."""
        return self.manifest.notes if self.manifest else ()


def make_or_find(
    config: Config,
    *,
    release: str | None = None,
    onnx: str | None = None,
    only: bool = False,
    copy_to: str | None = None,
    allow_missing_metrics: bool = False,
    dry_run: bool = False,
) -> Subject:
    """Make a release, or find the one that `release` names; a dry run takes the newest there is.

    Raises:
        ParameterError: no such release.
        OpsError: it cannot be made; see `build_release`.
    """
    if release is not None or dry_run:
        there = list_releases(config)
        stored = find_release(config, release) if release or there else None
        return Subject(stored, _read_manifest(stored))
    request = ReleaseRequest(
        onnx=Path(onnx) if onnx else None,
        only=only,
        allow_missing_metrics=allow_missing_metrics,
    )
    made = build_release(config, request)
    second = copy_to or config.release.copy_to
    copied = copy_release(made.path, config.resolve(second), config=config) if second else None
    stored = find_release(config, made.path)
    return Subject(stored, _read_manifest(stored), made, copied)


def _read_manifest(stored: StoredRelease | None) -> Manifest | None:
    """The manifest, or None where it cannot be read: the restore test says why."""
    try:
        return stored.manifest() if stored else None
    except (OpsError, OSError):
        return None
