"""How old the last release is, whether the live model is in one, and whether they restore."""

from collections.abc import Iterable
from pathlib import Path

from opslib.core.clock import parse_moment, part_ahead
from opslib.core.errors import OpsError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import list_kinds
from opslib.ops.checklist.items import Answer, Evidence, State, Visit, age_days, describe_age
from opslib.ops.checklist.service import ask_version
from opslib.ops.release.record import Proof, proofs_of, read_proofs
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.serving.client import ServiceError
from opslib.serving.swap import local_digests

MAKE = "make one: `pillops release create`"
PROVE = "prove one: `pillops release prove`"
REPLACE = "make a new release, prove it, then find out what broke the old one"


def check_release(visit: Visit) -> Answer:
    """Return the last release, its age, and whether what is served now is in a release."""
    there, found = list_releases(visit.config, now=visit.now), Evidence()
    found.add_ahead("release", [one.name for one in there if one.is_ahead])
    releases = tuple(one for one in there if not one.is_ahead)
    if not releases:
        if not there:
            found.add("attention", f"not set up: no release in {visit.config.releases_dir}")
        return found.answer(MAKE)
    newest = releases[0]
    age = age_days(newest.released_at_utc or "", visit.now)
    if newest.problem:
        found.add("failed", f"the last release is broken: {newest.name}: {newest.problem}")
    else:
        told = f"{newest.name}, {describe_age(age)}, {format_bytes(newest.size_bytes)}"
        found.add(*_judge_age(told, age, visit.config.checklist.release_age_days))
    broken = [one.name for one in releases[1:] if one.problem]
    if broken:
        found.add("attention", f"{plural(len(broken), 'older release')} broken: {broken[0]}")
    _find_live(visit, releases, found)
    return found.answer(MAKE)


def check_restore(visit: Visit) -> Answer:
    """Return how the last restore test of each release ended, and how long ago the last was."""
    releases, found = list_releases(visit.config, now=visit.now), Evidence()
    proofs = read_proofs(visit.config)
    if not proofs:
        never = "not set up: no release was ever restored for a test"
        return Answer.of("attention", never, step=PROVE if releases else MAKE)
    here = _proofs_of_these(releases, proofs)
    dated, ahead = part_ahead(here, lambda one: parse_moment(one.proved_at_utc), visit.now)
    found.add_ahead("restore test", [one.release for one in ahead])
    if dated:
        newest, age = dated[-1], age_days(dated[-1].proved_at_utc, visit.now)
        told = f"last test {describe_age(age)}: {newest.release}, in {newest.took_s:.1f} s"
        found.add(*_judge_age(told, age, visit.config.checklist.proof_age_days))
    elif not ahead:
        gone = proofs[-1].release
        told = f"no release that is here was restored for a test: {gone}, proved last, is gone"
        found.add("attention", told)
    # A failure counts whatever its date: that the release restores is what has to be shown.
    last = {one.release: one for one in here if not one.ok or one in dated}
    for one in last.values():
        if not one.ok:
            found.add("failed", f"{one.release} does not restore: {one.problem}", REPLACE)
        elif one.note:
            found.add("attention", f"{one.release} restores, but {one.note}")
    unproved = [one.name for one in releases if one.name not in last]
    if unproved:
        found.add("ok", f"{plural(len(unproved), 'release')} not tested yet: {unproved[0]}")
    return found.answer(PROVE)


def _judge_age(told: str, age: float | None, limit_days: float) -> tuple[State, str]:
    if age is None or age > limit_days:
        return "attention", f"{told}: one is due every {limit_days:g} days"
    return "ok", told


def _proofs_of_these(releases: Iterable[StoredRelease], proofs: Iterable[Proof]) -> list[Proof]:
    """The restore tests of what is there, in their order: a release that is gone, or another one
    of its name, proves nothing of it."""
    copies = {one.name: one.read_copy() for one in releases}
    contents = {name: copy.content_id if copy else None for name, copy in copies.items()}
    known = [one for one in proofs if one.release in contents]
    return [one for one in known if proofs_of([one], one.release, contents[one.release])]


def _find_live(visit: Visit, releases: tuple[StoredRelease, ...], found: Evidence) -> None:
    """Take whether a release holds the model of each kind that is served now; nothing where that
    is not known."""
    kinds = list_kinds(visit.config)
    try:
        served = [(kind, ask_version(visit, kind)) for kind in kinds]
    except ServiceError:
        return
    for kind, live in served:
        digests = frozenset({live.sha256}) if live and live.sha256 else frozenset[str]()
        if live and live.model_path and not digests:
            digests = local_digests(Path(live.model_path))  # the service gives none
        if live is None or not digests:
            continue
        held = next((one.name for one in releases if _holds(one, digests)), None)
        if held is not None:
            found.add("ok", kind.of(f"the live model is in {held}"))
            continue
        shown = (live.version_tag if kind.sole else None) or live.model_path
        found.add("attention", kind.of(f"the live model ({shown}) is in no release"))


def _holds(release: StoredRelease, digests: frozenset[str]) -> bool:
    try:
        return not release.problem and bool(digests & release.manifest().digests())
    except OpsError:
        return False
