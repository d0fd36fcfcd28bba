"""All hosts of a report folder: which is slower than its like, behind the others, or silent."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from opslib.core.clock import parse_moment
from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import plural, shorten, stamp, utc_now
from opslib.core.language import name_some, tr, tr_many
from opslib.core.lineage import record_lineage
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.ops.fleet.collect import Desk, Host, read_desk
from opslib.ops.fleet.record import FleetHost, FleetRecord, LikeGroup, Served
from opslib.ops.fleet.serving import find_current, track
from opslib.ops.fleet.speeds import Speed, compare_hosts

LONGEST_DAYS = 3650.0
DAY_S = 86_400.0


def run_fleet(
    root: Path, *, days: float = 180.0, silent_days: float = 8.0, behind_days: float = 1.0
) -> FleetRecord:
    """Return the record of all hosts with runs in a report folder; nothing is written.

    Args:
        days: older runs count for nothing, and a host without a newer one is no host of the fleet.
        silent_days: a host whose newest run is older was not heard of.
        behind_days: a host is behind when another serves a newer model, and has for so long.

    Raises:
        ParameterError: one of them is out of range.
    """
    asked = {"days": days, "silent_days": silent_days, "behind_days": behind_days}
    for name, value in asked.items():
        if not 0 < value <= LONGEST_DAYS:
            allowed = f"expected above 0 to {LONGEST_DAYS:g}"
            raise ParameterError(f"{name}: got {value:g}; {allowed}")
    now = utc_now()
    desk = read_desk(root, now - timedelta(days=days))
    groups, speeds = compare_hosts(desk.hosts)
    silent = {host.title for host in desk.hosts if (now - host.last) > timedelta(days=silent_days)}
    history = track(desk.hosts, silent)
    late = _find_behind(history, silent, now - timedelta(days=behind_days))
    made = (
        _make_host(host, speeds[host.title], history[host.title], late, now, silent)
        for host in desk.hosts
    )
    hosts = tuple(sorted(made, key=_urgency))
    verdict, finding = judge(hosts, groups)
    return FleetRecord(
        verdict=verdict,
        finding=finding,
        exit_code=int(VERDICT_EXIT_CODES[verdict]),
        lineage=record_lineage(),
        **asked,
        hosts=hosts,
        groups=groups,
        history=history,
        notes=tuple(_list_notes(desk, days)),
    )


def keep_fleet(record: FleetRecord, config: Config) -> Path:
    """Write the record to `{exp_dir}/reports/fleet_<UTC>.json`; return its path."""
    return record.write(config.records_dir / f"fleet_{stamp()}.json")


def judge(hosts: Sequence[FleetHost], groups: Iterable[LikeGroup]) -> tuple[Verdict, str]:
    """Return the verdict on these hosts and the finding, the worst first."""
    if not hosts:
        return "inconclusive", tr("No run of a host that is known: there is nothing to compare.")
    slower = [host for host in hosts if host.speed == "slower"]
    behind = [host for host in hosts if host.behind]
    silent = [host for host in hosts if host.is_silent]
    untold = [host for host in hosts if host.speed is None]
    parts = []
    if slower:
        most = {host.name: _most_slower(host.name, groups) for host in slower}
        told = [tr("{host} by {pct:.0f} %", host=name, pct=pct) for name, pct in most.items()]
        parts.append(
            tr_many(
                "{hosts} is slower than its like",
                "{hosts} are slower than their like",
                len(slower),
                hosts=name_some(told),
            )
        )
    if behind:
        named = name_some([host.name for host in behind])
        parts.append(
            tr_many(
                "{hosts} serves an older model than others do",
                "{hosts} serve older models than others do",
                len(behind),
                hosts=named,
            )
        )
    if silent:
        told = [
            tr("{host} for {days:.0f} days", host=host.name, days=host.silent_days)
            for host in silent
        ]
        parts.append(tr("nothing was heard of {hosts}", hosts=name_some(told)))
    if len(hosts) == 1:
        parts.append(
            tr("{host} is the only host: there is none to compare it with", host=hosts[0].name)
        )
    elif len(untold) == len(hosts):
        parts.append(
            tr(
                "no host could be held beside its like, for example {host}: {why}",
                host=untold[0].name,
                why=untold[0].why,
            )
        )
    elif untold:
        named = name_some([host.name for host in untold])
        parts.append(
            tr_many(
                "{hosts} was not comparable",
                "{hosts} were not comparable",
                len(untold),
                hosts=named,
            )
        )
    good = [host for host in hosts if host.speed in ("alike", "faster")]
    if good and len(good) == len(hosts):
        parts.append(tr("all {hosts} hosts are as fast as their like", hosts=len(hosts)))
    elif good:
        parts.append(
            tr_many(
                "{count} of {hosts} hosts is as fast as its like",
                "{count} of {hosts} hosts are as fast as their like",
                len(good),
                hosts=len(hosts),
            )
        )
    verdict: Verdict = "pass"
    if slower or behind:
        verdict = "fail"
    elif silent or untold:
        verdict = "inconclusive"
    text = "; ".join(parts)
    if not any(text.startswith(host.name) for host in hosts):
        text = text[:1].upper() + text[1:]
    return verdict, f"{text}."


def _find_behind(
    history: Mapping[str, tuple[Served, ...]], silent: set[str], until: datetime
) -> dict[str, tuple[str, ...]]:
    """By title why a host is behind; of one that is silent nobody knows."""
    current = {title: find_current(history[title]) for title in sorted(set(history) - silent)}
    settled = [
        (one, title)
        for title, served in current.items()
        for one in served
        if (since := parse_moment(one.first_utc)) is not None and since <= until
    ]
    found: dict[str, tuple[str, ...]] = {}
    for title, served in current.items():
        lines = []
        for one in served:
            newer = [
                (best, where)
                for best, where in settled
                if best.kind == one.kind and best.newer < one.newer
            ]
            if newer:
                best, where = min(newer, key=lambda other: (other[0].newer, other[0].first_utc))
                count = f"{plural(one.newer, 'newer model')} served elsewhere"
                lines.append(f"{count}, {best.name} on {where} since {best.first_utc[:10]}")
        if lines:
            found[title] = tuple(lines)
    return found


def _make_host(
    host: Host,
    speed: Speed,
    history: Sequence[Served],
    late: Mapping[str, tuple[str, ...]],
    now: datetime,
    silent: set[str],
) -> FleetHost:
    return FleetHost(
        name=host.title,
        hardware=host.label,
        runs=len(host.runs),
        last_utc=host.last.isoformat(),
        silent_days=round((now - host.last).total_seconds() / DAY_S, 3),
        is_silent=host.title in silent,
        speed=speed.outcome,
        why=speed.why,
        served=find_current(history),
        behind=late.get(host.title, ()),
    )


def _urgency(host: FleetHost) -> tuple[bool, bool, bool, bool, str]:
    """The place of a host in the list: who needs a person comes first."""
    slower, known = host.speed == "slower", host.speed is not None
    return not slower, not host.behind, not host.is_silent, known, host.name


def _most_slower(name: str, groups: Iterable[LikeGroup]) -> float:
    found = [
        one.difference_pct
        for group in groups
        for row in group.rows
        if row.host == name
        for one in row.measures
        if one.outcome == "slower"
    ]
    return max(found)


def _list_notes(desk: Desk, days: float) -> Iterable[str]:
    if desk.unread:
        some = shorten(", ".join(desk.unread), 200)
        yield f"{plural(len(desk.unread), 'record')} left out that cannot be read: {some}"
    if desk.unplaced:
        yield f"{plural(desk.unplaced, 'run')} left out that name no host, as of plain papermill"
    if desk.gone:
        yield f"no run in {days:g} days, so no host of the fleet: {', '.join(desk.gone)}"
    if desk.renewed:
        yield f"of other hardware since, under the same name: {', '.join(desk.renewed)}"
    if nameless := [host.title for host in desk.hosts if host.name is None]:
        yield f"without a name, so perhaps several hosts of equal hardware: {', '.join(nameless)}"
