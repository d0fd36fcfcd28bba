"""Which host serves which model, as far as its records say, and which is behind the others."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from opslib.core.clock import parse_moment
from opslib.ops.fleet.collect import Host, Noted
from opslib.ops.fleet.record import Served

History = dict[str, tuple[Served, ...]]
_DIGITS = 12
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)")


def track(hosts: Iterable[Host], silent: Collection[str] = ()) -> History:
    """Return by title what each host was known to serve, the oldest first, each model of a kind
    with how many newer ones are in service. Of the hosts in `silent` nobody knows what they serve
    now; a model that was rolled back everywhere is in service nowhere."""
    spans = {host.title: _merge(host.noted) for host in hosts}
    heard = [served for title, served in spans.items() if title not in silent]
    current = [one for served in heard for one in find_current(served)]
    for kind in {one.kind for served in spans.values() for one in served}:
        order = _order([one for served in spans.values() for one in served if one.kind == kind])
        in_service = [any(is_same(model, one) for one in current) for model in order]
        for title, served in spans.items():
            spans[title] = [
                _rank(one, order, in_service) if one.kind == kind else one for one in served
            ]
    return {title: tuple(served) for title, served in spans.items()}


def find_current(history: Iterable[Served]) -> tuple[Served, ...]:
    """Return what a host was last known to serve of each kind."""
    newest: dict[str, Served] = {}
    for one in history:
        known = newest.get(one.kind)
        if known is None or one.last_utc >= known.last_utc:
            newest[one.kind] = one
    return tuple(newest[kind] for kind in sorted(newest))


def is_same(one: Served, other: Served) -> bool:
    """Return whether both are the same model: by digest where both have one, else by name."""
    if one.kind != other.kind:
        return False
    if one.sha256 and other.sha256:
        return one.sha256[:_DIGITS] == other.sha256[:_DIGITS]
    return _stem(one.name) == _stem(other.name)


def _merge(noted: Sequence[Noted]) -> list[Served]:
    """One entry for each stretch of notes, in the order of time, that say the same of a kind."""
    spans: list[Served] = []
    last: dict[str, int] = {}
    for one in noted:
        note, at = one.note, one.at.isoformat()
        since = note.since_utc if note.since_utc and note.since_utc <= at else at
        found = Served(
            kind=note.kind,
            name=note.name,
            sha256=note.sha256,
            version_tag=note.version_tag,
            first_utc=since,
            last_utc=at,
            source=one.source,
        )
        place = last.get(note.kind)
        if place is not None and is_same(spans[place], found):
            digest = spans[place].sha256 or ""
            longer = {"sha256": note.sha256} if len(note.sha256 or "") > len(digest) else {}
            changes = {"last_utc": at, "source": one.source, **longer}
            spans[place] = spans[place].model_copy(update=changes)
        else:
            last[note.kind] = len(spans)
            spans.append(found)
    return spans


def _order(served: Sequence[Served]) -> list[Served]:
    """The models of one kind, the oldest first: by the dates in their names where all have one,
    else by when each was first seen."""
    models: list[Served] = []
    for one in sorted(served, key=lambda one: one.first_utc):
        if not any(is_same(one, known) for known in models):
            models.append(one)
    dates = [moment for one in models if (moment := _named_moment(one)) is not None]
    if len(dates) < len(models):
        return models
    return [models[at] for at in sorted(range(len(models)), key=dates.__getitem__)]


def _rank(one: Served, order: Sequence[Served], in_service: Sequence[bool]) -> Served:
    place = next((at for at, known in enumerate(order) if is_same(one, known)), len(order) - 1)
    return one.model_copy(update={"newer": sum(in_service[place + 1 :])})


def _named_moment(one: Served) -> datetime | None:
    found = _STAMP.search(one.name) or _STAMP.search(one.version_tag or "")
    return parse_moment("{}-{}-{}T{}:{}:{}".format(*found.groups())) if found else None


def _stem(name: str) -> str:
    return name.removesuffix(".onnx")
