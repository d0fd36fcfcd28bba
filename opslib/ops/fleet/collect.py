"""What a report folder tells of its hosts: their runs, their benchmarks and what they serve."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath

from opslib.core.clock import parse_moment
from opslib.core.errors import InputError
from opslib.core.served import ServedNote
from opslib.ops.bench.record import BenchRecord
from opslib.ops.checklist.record import ChecklistRecord
from opslib.ops.fleet.record import Source
from opslib.runs.catalogue import RunRow, drop_ahead, name_hosts, scan_runs
from opslib.timing.between import MOST_RUNS

# A checklist of before there were notes says it in words only.
_LIVE = re.compile(
    r"(?:(?P<kind>[\w-]+): )?live: (?P<name>.+) \((?:sha256 (?P<sha256>[0-9a-f]{12})|digest).*\)"
)


@dataclass(frozen=True)
class Noted:
    """What a host served at a moment, and who says so."""

    note: ServedNote
    at: datetime
    source: Source


@dataclass
class Host:
    """One host: its hardware, its name where that is known, and what its runs left, the newest
    first."""

    machine: str | None
    name: str | None
    label: str
    runs: list[RunRow] = field(default_factory=list)
    benches: list[tuple[datetime, BenchRecord]] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    title: str = ""

    @property
    def last(self) -> datetime:
        """When its newest run started."""
        return moments(self.runs)[0]


@dataclass
class Desk:
    """The hosts of a report folder, and what of it could not be read or is of no host. `gone` were
    not heard of in the days that count; `renewed` are those whose name has other hardware since."""

    hosts: list[Host] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unplaced: int = 0
    runs: int = 0
    gone: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)


def read_desk(root: Path, since: datetime) -> Desk:
    """Return what the runs that started after `since` tell. What is damaged is counted by name and
    left out; runs dated after now count for nothing."""
    rows = drop_ahead(scan_runs(root))
    names, desk = name_hosts(rows), Desk(runs=len(rows))
    hosts: dict[tuple[str | None, str | None], Host] = {}
    for row in rows:
        started, name = parse_moment(row.started), names[row.id]
        if row.word == "Broken" and not row.finished:
            desk.unread.append(row.record_path)
        elif started is None or (row.machine is None and name is None):
            desk.unplaced += 1
        else:
            which = _place(hosts, row.machine, name)
            label = row.hardware or "unknown hardware"
            hosts.setdefault(which, Host(*which, label)).runs.append(row)
    _name(hosts.values())
    for host in hosts.values():
        if _find_renewed(host, hosts.values()):
            desk.renewed.append(host.title)
            continue
        if host.last < since:
            desk.gone.append(host.title)
            continue
        host.runs = [
            row for row, at in zip(host.runs, moments(host.runs), strict=True) if at >= since
        ]
        desk.hosts.append(host)
        _read_records(root, host, desk)
    desk.hosts.sort(key=lambda host: host.title)
    return desk


def moments(rows: Iterable[RunRow]) -> list[datetime]:
    """Return when each run started."""
    found = [parse_moment(row.started) for row in rows]
    return [one for one in found if one is not None]


def _place(
    hosts: dict[tuple[str | None, str | None], Host], machine: str | None, name: str | None
) -> tuple[str | None, str | None]:
    """Whose a run is; one that tells no hardware belongs to the newest host of its name."""
    if machine is None:
        return next((which for which in hosts if which[1] == name), (machine, name))
    return machine, name


def _name(hosts: Iterable[Host]) -> None:
    """Give each host the shortest title that no other has."""
    known = list(hosts)
    plain = Counter(host.name or host.label for host in known)
    longer = Counter(f"{host.name or 'no name'}, {host.label}" for host in known)
    for host in known:
        short, long = host.name or host.label, f"{host.name or 'no name'}, {host.label}"
        unique = plain[short] == 1
        host.title = short if unique else long if longer[long] == 1 else f"{long}, {host.machine}"


def _find_renewed(host: Host, hosts: Iterable[Host]) -> Host | None:
    """Return the host that took over the name, with a first run after this one's last."""
    others = (one for one in hosts if one is not host and one.name and one.name == host.name)
    return next((one for one in others if moments(one.runs)[-1] > host.last), None)


def _read_records(root: Path, host: Host, desk: Desk) -> None:
    for row, at in zip(host.runs, moments(host.runs), strict=True):
        if row.served is not None:
            host.noted.append(Noted(row.served, at, "switched in"))
        kind = PurePath(row.record or "").name.partition("_")[0]
        if not row.finished or row.record is None or kind not in ("bench", "checklist"):
            continue
        path = (root / row.record_path).parent / row.record
        try:
            if kind == "checklist":
                host.noted += _read_notes(ChecklistRecord.read(path), at)
            elif len(host.benches) < MOST_RUNS:
                host.benches.append((at, BenchRecord.read(path).slim()))
        except InputError:
            desk.unread.append(path.relative_to(root).as_posix())
    host.noted.sort(key=lambda one: one.at)


def _read_notes(record: ChecklistRecord, at: datetime) -> Iterator[Noted]:
    item = record.item("model")
    if item is None:
        return
    for note in item.models or tuple(_notes_in_words(item.evidence)):
        yield Noted(note, at, "answered")


def _notes_in_words(lines: Iterable[str]) -> Iterator[ServedNote]:
    for line in lines:
        if found := _LIVE.fullmatch(line):
            name, sha256 = found["name"], found["sha256"]
            kind = found["kind"] or "model"
            yield ServedNote(kind=kind, name=name, sha256=sha256, version_tag=name)
