"""How old the last release is, whether the live model is in one, and whether they restore."""

from __future__ import annotations

from pathlib import Path

from opslib.core.clock import parse_moment, part_ahead
from opslib.core.errors import OpsError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import list_kinds
from opslib.ops.checklist.ages import age_days, describe_age, tell_ahead
from opslib.ops.checklist.items import Answer, State, Visit, answer_worst
from opslib.ops.checklist.live import ask_version
from opslib.ops.release.record import Proof, proofs_of, read_proofs
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.serving.client import ServiceError
from opslib.serving.live import LiveVersion
from opslib.serving.swap import local_digests

MAKE = "make one: `pillops release create`"
PROVE = "prove one: `pillops release prove`"


def check_release(visit: Visit) -> Answer:
    """Return the last release, its age, and whether what is served now is in a release."""
    there = list_releases(visit.config, now=visit.now)
    ahead = tell_ahead("release", [one.name for one in there if one.is_ahead])
    releases = tuple(one for one in there if not one.is_ahead)
    if not releases:
        missing = f"not set up: no release in {visit.config.releases_dir}"
        return Answer(state="attention", evidence=(ahead or missing,), next_step=MAKE)
    newest, steps = releases[0], [MAKE]
    age = age_days(newest.released_at_utc or "", visit.now)
    limit = visit.config.checklist.release_age_days
    told = f"{newest.name}, {describe_age(age)}, {format_bytes(newest.size_bytes)}"
    found: list[tuple[State, str]] = [("attention", ahead)] if ahead else []
    if newest.problem:
        found.append(("failed", f"the last release is broken: {newest.name}: {newest.problem}"))
    elif age is None or age > limit:
        found.append(("attention", f"{told}: one is due every {limit:g} days"))
    else:
        found.append(("ok", told))
    broken = [one.name for one in releases[1:] if one.problem]
    if broken:
        found.append(("attention", f"{plural(len(broken), 'older release')} broken: {broken[0]}"))
        steps.append("look at it: `pillops release list`; then `pillops release verify`")
    found += _find_live(visit, releases)
    return answer_worst(found, steps)


def check_restore(visit: Visit) -> Answer:
    """Return how the last restore test of each release ended, and how long ago the last was."""
    releases = list_releases(visit.config, now=visit.now)
    proofs = read_proofs(visit.config)
    if not proofs:
        step = PROVE if releases else MAKE
        evidence = ("not set up: no release was ever restored for a test",)
        return Answer(state="attention", evidence=evidence, next_step=step)
    here, steps = _proofs_of_these(releases, proofs), [PROVE]
    dated, ahead = part_ahead(here, lambda one: parse_moment(one.proved_at_utc), visit.now)
    told_ahead = tell_ahead("restore test", [one.release for one in ahead])
    found: list[tuple[State, str]] = [("attention", told_ahead)] if told_ahead else []
    if dated:
        found.append(_describe_last(visit, dated[-1]))
    elif not ahead:
        gone = proofs[-1].release
        told = f"no release that is here was restored for a test: {gone}, proved last, is gone"
        found.append(("attention", told))
    # A failure counts whatever its date: that the release restores is what has to be shown.
    last = {one.release: one for one in here if not one.ok or one in dated}
    for one in last.values():
        found += _judge(one)
    unproved = [one.name for one in releases if one.name not in last]
    if unproved:
        found.append(("ok", f"{plural(len(unproved), 'release')} not tested yet: {unproved[0]}"))
    if any(state == "failed" for state, _ in found):
        steps.insert(0, "make a new release, prove it, then find out what broke the old one")
    return answer_worst(found, steps)


def _proofs_of_these(
    releases: tuple[StoredRelease, ...], proofs: tuple[Proof, ...]
) -> tuple[Proof, ...]:
    """The restore tests of what is there, in their order: a release that is gone, or another one
    of its name, proves nothing of it."""
    copies = {one.name: one.read_copy() for one in releases}
    contents = {name: copy.content_id if copy else None for name, copy in copies.items()}
    return tuple(
        one
        for one in proofs
        if one.release in contents and proofs_of([one], one.release, contents[one.release])
    )


def _describe_last(visit: Visit, newest: Proof) -> tuple[State, str]:
    age = age_days(newest.proved_at_utc, visit.now)
    limit = visit.config.checklist.proof_age_days
    told = f"last test {describe_age(age)}: {newest.release}, in {newest.took_s:.1f} s"
    if age is None or age > limit:
        return "attention", f"{told}: one is due every {limit:g} days"
    return "ok", told


def _judge(proof: Proof) -> list[tuple[State, str]]:
    if not proof.ok:
        return [("failed", f"{proof.release} does not restore: {proof.problem}")]
    if proof.note:
        return [("attention", f"{proof.release} restores, but {proof.note}")]
    return []


def _find_live(visit: Visit, releases: tuple[StoredRelease, ...]) -> list[tuple[State, str]]:
    """Whether a release holds the model of each kind that is served now; nothing where that is
    not known."""
    found: list[tuple[State, str]] = []
    for kind in list_kinds(visit.config):
        try:
            live = ask_version(visit, kind)
        except ServiceError:
            return []
        digests = _digests_of(live)
        if live is None or not digests:
            continue
        held = next((one.name for one in releases if _holds(one, digests)), None)
        if held is not None:
            found.append(("ok", kind.of(f"the live model is in {held}")))
            continue
        tag = live.version_tag if kind.sole else live.model_path
        shown = tag or live.model_path
        found.append(("attention", kind.of(f"the live model ({shown}) is in no release")))
    return found


def _digests_of(live: LiveVersion | None) -> frozenset[str]:
    """What the live model may be known by; by its file where the service gives no digest."""
    if live is None:
        return frozenset()
    if live.sha256 is not None:
        return frozenset({live.sha256})
    return local_digests(Path(live.model_path)) if live.model_path else frozenset()


def _holds(release: StoredRelease, digests: frozenset[str]) -> bool:
    if release.problem:
        return False
    try:
        return any(model.sha256 in digests for model in release.manifest().models)
    except OpsError:
        return False
