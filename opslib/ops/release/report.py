"""What a report of a release is about: the release, made now or found, and the whole store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import OpsError
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.manifest import Manifest
from opslib.ops.release.push import SecondCopy, check_place, put_copy
from opslib.ops.release.record import Proof, Standing, proofs_of, read_proofs
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import StoredRelease, find_release, list_releases


@dataclass(frozen=True)
class Subject:
    """A release; `made` says how, if it was made now, and `copied` is its verified second copy. A
    dry run that found no release has none. The restore test says why a manifest is missing."""

    stored: StoredRelease | None
    manifest: Manifest | None
    made: ReleaseRecord | None = None
    copied: SecondCopy | None = None

    @property
    def name(self) -> str:
        """The release's name."""
        return self.stored.name if self.stored else "no release"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted when it was made, and what its models give away."""
        noted = self.manifest.notes if self.manifest else ()
        return (*noted, *self.made.gives_away) if self.made else noted


@dataclass(frozen=True)
class CoverageRow:
    """One release with its tests, the oldest first, and its manifest where that can be read."""

    stored: StoredRelease
    manifest: Manifest | None
    proofs: tuple[Proof, ...]
    problem: str | None = None

    @property
    def last(self) -> Proof | None:
        """The last test."""
        return self.proofs[-1] if self.proofs else None

    @property
    def standing(self) -> Standing:
        """What its last test says; `not asked` where it was restored and served, but its model
        has no golden images."""
        return self.last.standing if self.last else "never proved"


def make_or_find(
    config: Config,
    *,
    release: str | None = None,
    onnx: str | None = None,
    only: bool = False,
    copy_to: str | None = None,
    allow_missing_metrics: bool = False,
    strip_metadata: bool = False,
    unsigned: bool = False,
    dry_run: bool = False,
) -> Subject:
    """Make a release, or find the one that `release` names; a dry run takes the newest there is.
    Raises ParameterError: no such release. OpsError: it cannot be made; see `build_release`."""
    made = copied = stored = None
    if release is not None or dry_run:
        if release or list_releases(config):
            stored = find_release(config, release)
    else:
        second = copy_to or config.release.copy_to
        place = check_place(str(second)) if second else None
        model = Path(onnx) if onnx else None
        request = ReleaseRequest(
            model,
            only,
            allow_missing_metrics=allow_missing_metrics,
            strip_metadata=strip_metadata,
            unsigned=unsigned,
        )
        made = build_release(config, request)
        copied = put_copy(made.path, place, config=config) if place else None
        stored = find_release(config, made.path)
    return Subject(stored, _read_manifest(stored)[0] if stored else None, made, copied)


def read_coverage(config: Config) -> tuple[CoverageRow, ...]:
    """Return every release of the store, the newest first, with its tests. Raises InputError: the
    history of tests cannot be read."""
    proofs, rows = read_proofs(config), []
    for stored in list_releases(config):
        manifest, problem = _read_manifest(stored)
        tests = proofs_of(proofs, stored.name, manifest.content_id if manifest else None)
        rows.append(CoverageRow(stored, manifest, tests, stored.problem or problem))
    return tuple(rows)


def find_previous(rows: Sequence[CoverageRow], stored: StoredRelease | None) -> CoverageRow | None:
    """Return the last readable release made before `stored`, or None where there is none."""
    names = [row.stored.name for row in rows]
    older = rows[names.index(stored.name) + 1 :] if stored and stored.name in names else ()
    return next((row for row in older if row.manifest is not None), None)


def _read_manifest(stored: StoredRelease) -> tuple[Manifest | None, str | None]:
    try:
        return stored.manifest(), None
    except (OpsError, OSError) as error:
        return None, str(error)
