"""How old the last release is, whether the live model is in one, and whether they restore."""

from collections.abc import Iterable
from pathlib import Path

from opslib.core.clock import parse_moment, part_ahead
from opslib.core.errors import OpsError
from opslib.core.formatting import format_bytes
from opslib.core.kinds import list_kinds
from opslib.core.language import mark, tr, tr_many
from opslib.ops.checklist.items import Answer, Evidence, State, Visit, age_days, describe_age
from opslib.ops.checklist.service import ask_version
from opslib.ops.release.record import Proof, proofs_of, read_proofs
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.serving.client import ServiceError
from opslib.serving.swap import local_digests

MAKE = mark("make one: `pillops release create`")
PROVE = mark("prove one: `pillops release prove`")
REPLACE = mark("make a new release, prove it, then find out what broke the old one")


def check_release(visit: Visit) -> Answer:
    """Return the last release, its age, and whether what is served now is in a release."""
    there, found = list_releases(visit.config, now=visit.now), Evidence()
    ahead = [one.name for one in there if one.is_ahead]
    found.add_ahead(tr_many("{count} release", "{count} releases", len(ahead)), ahead)
    releases = tuple(one for one in there if not one.is_ahead)
    if not releases:
        if not there:
            none = tr("no release in {folder}", folder=visit.config.releases_dir)
            found.add("attention", tr("not set up: {line}", line=none))
        return found.answer(tr(MAKE))
    newest = releases[0]
    age = age_days(newest.released_at_utc or "", visit.now)
    if newest.problem:
        told = tr(
            "the last release is broken: {name}: {problem}",
            name=newest.name,
            problem=newest.problem,
        )
        found.add("failed", told)
    else:
        told = f"{newest.name}, {describe_age(age)}, {format_bytes(newest.size_bytes)}"
        found.add(*_judge_age(told, age, visit.config.checklist.release_age_days))
    broken = [one.name for one in releases[1:] if one.problem]
    if broken:
        told = tr_many(
            "{count} older release broken: {name}",
            "{count} older releases broken: {name}",
            len(broken),
            name=broken[0],
        )
        found.add("attention", told)
    _find_live(visit, releases, found)
    return found.answer(tr(MAKE))


def check_restore(visit: Visit) -> Answer:
    """Return how the last restore test of each release ended, and how long ago the last was."""
    releases, found = list_releases(visit.config, now=visit.now), Evidence()
    proofs = read_proofs(visit.config)
    if not proofs:
        never = tr("not set up: {line}", line=tr("no release was ever restored for a test"))
        return Answer.of("attention", never, step=tr(PROVE if releases else MAKE))
    here = _proofs_of_these(releases, proofs)
    dated, ahead = part_ahead(here, lambda one: parse_moment(one.proved_at_utc), visit.now)
    counted = tr_many("{count} restore test", "{count} restore tests", len(ahead))
    found.add_ahead(counted, [one.release for one in ahead])
    if dated:
        newest, age = dated[-1], age_days(dated[-1].proved_at_utc, visit.now)
        told = tr(
            "last test {age}: {release}, in {seconds:.1f} s",
            age=describe_age(age),
            release=newest.release,
            seconds=newest.took_s,
        )
        found.add(*_judge_age(told, age, visit.config.checklist.proof_age_days))
    elif not ahead:
        told = tr(
            "no release that is here was restored for a test: {release}, proved last, is gone",
            release=proofs[-1].release,
        )
        found.add("attention", told)
    # A failure counts whatever its date: that the release restores is what has to be shown.
    last = {one.release: one for one in here if not one.ok or one in dated}
    for one in last.values():
        if not one.ok:
            told = tr(
                "{release} does not restore: {problem}", release=one.release, problem=one.problem
            )
            found.add("failed", told, tr(REPLACE))
        elif one.note:
            told = tr("{release} restores, but {note}", release=one.release, note=one.note)
            found.add("attention", told)
    unproved = [one.name for one in releases if one.name not in last]
    if unproved:
        told = tr_many(
            "{count} release not tested yet: {name}",
            "{count} releases not tested yet: {name}",
            len(unproved),
            name=unproved[0],
        )
        found.add("ok", told)
    return found.answer(tr(PROVE))


def _judge_age(told: str, age: float | None, limit_days: float) -> tuple[State, str]:
    if age is None or age > limit_days:
        return "attention", tr("{told}: one is due every {days:g} days", told=told, days=limit_days)
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
            found.add("ok", kind.of(tr("the live model is in {release}", release=held)))
            continue
        shown = (live.version_tag if kind.sole else None) or live.model_path
        found.add(
            "attention", kind.of(tr("the live model ({model}) is in no release", model=shown))
        )


def _holds(release: StoredRelease, digests: frozenset[str]) -> bool:
    try:
        return not release.problem and bool(digests & release.manifest().digests())
    except OpsError:
        return False
