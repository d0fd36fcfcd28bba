"""The release store at a glance: what each release is, and when it was last proved to restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opslib.core.config import Config
from opslib.core.errors import OpsError
from opslib.ops.release.manifest import Manifest
from opslib.ops.release.proofs import Proof, Standing, proofs_of, read_proofs
from opslib.ops.release.store import StoredRelease, list_releases


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


def read_coverage(config: Config) -> tuple[CoverageRow, ...]:
    """Return every release of the store, the newest first, with its tests.

    Raises:
        InputError: the history of tests cannot be read.
    """
    proofs = read_proofs(config)
    return tuple(_read_row(stored, proofs) for stored in list_releases(config))


def find_previous(rows: Sequence[CoverageRow], stored: StoredRelease) -> CoverageRow | None:
    """Return the last readable release made before `stored`, or None where there is none."""
    names = [row.stored.name for row in rows]
    older = rows[names.index(stored.name) + 1 :] if stored.name in names else ()
    return next((row for row in older if row.manifest is not None), None)


def _read_row(stored: StoredRelease, proofs: Sequence[Proof]) -> CoverageRow:
    manifest, problem = None, stored.problem
    try:
        manifest = stored.manifest()
    except (OpsError, OSError) as error:
        problem = problem or str(error)
    content_id = manifest.content_id if manifest else None
    return CoverageRow(stored, manifest, proofs_of(proofs, stored.name, content_id), problem)
