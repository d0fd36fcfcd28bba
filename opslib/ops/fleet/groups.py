"""Which benchmarks of which hosts are alike: one group for each hardware, runtime, model and
options; nothing of one group is ever held beside another's."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from opslib.core.language import tr
from opslib.ops.bench.comparable import list_conditions
from opslib.ops.bench.record import ENGINE_NAMES, BenchRecord, BenchRow
from opslib.ops.fleet.collect import Host
from opslib.timing.between import FEWEST_RUNS
from opslib.timing.like import Figures

LEAST_HOSTS = 2
Timed = Literal["latency", "ratio", "reference"]


@dataclass(frozen=True)
class Point:
    """One run in a group: when it was made, and its rows by batch size."""

    at: datetime
    rows: dict[int, BenchRow]


@dataclass
class Group:
    """Runs that are alike, by host; asked once all are in. `line` is the engine, what it ran on and
    the boundary, which groups of one hardware may share; `conditions` are the rest."""

    machine: str
    hardware: str
    line: tuple[str, str, str]
    conditions: dict[str, str]
    points: dict[str, list[Point]] = field(default_factory=lambda: defaultdict(list))

    @property
    def what(self) -> str:
        """The line in words."""
        engine, provider, boundary = self.line
        where = "inference" if boundary == "inference" else "end to end"
        return f"{ENGINE_NAMES[engine]} on {provider}, {where}"

    @cached_property
    def newest(self) -> datetime:
        """When its newest run was made."""
        return max(point.at for points in self.points.values() for point in points)

    @cached_property
    def members(self) -> list[str]:
        """The hosts with runs enough, sorted; none where they measured no batch size in common."""
        sizes = set(self.sizes)
        return [host for host in self._rich() if len(self.counted(host, sizes)) >= FEWEST_RUNS]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that the newest runs of all its hosts have in common."""
        newest = [max(self.points[host], key=lambda one: one.at) for host in self._rich()]
        common = set.intersection(*(set(point.rows) for point in newest)) if newest else set()
        return tuple(sorted(common))

    def counted(self, host: str, sizes: Iterable[int]) -> list[Point]:
        """Return the runs of a host that have all of these batch sizes, at least one."""
        wanted = set(sizes)
        return [one for one in self.points[host] if wanted and wanted <= set(one.rows)]

    def figures(self, host: str, measure: Timed) -> Figures | None:
        """Return a host's figures, logarithms over all batch sizes; None where a run has none."""
        found = [
            _take_together([point.rows[size] for size in self.sizes], measure)
            for point in self.counted(host, self.sizes)
        ]
        known = [one for one in found if one is not None]
        if len(known) < FEWEST_RUNS or len(known) < len(found):
            return None
        values, variances = zip(*known, strict=True)
        return Figures(values, statistics.fmean(variances))

    def _rich(self) -> list[str]:
        return sorted(host for host, points in self.points.items() if len(points) >= FEWEST_RUNS)


def make_groups(hosts: Iterable[Host]) -> list[Group]:
    """Return all groups, those with the newest runs first."""
    groups: dict[str, Group] = {}
    for host in hosts:
        for at, record in host.benches:
            for which, group, rows in _split(record):
                known = groups.setdefault(which, group)
                known.points[host.title].append(Point(at, rows))
    return sorted(groups.values(), key=lambda group: group.newest, reverse=True)


def tell_difference(host: str, groups: Sequence[Group]) -> str:
    """Return why a host is in no group of like hosts."""
    own = [group for group in groups if host in group.points]
    if not own:
        return tr("no benchmark with a figure")
    mine = own[0]
    twins = [one for one in groups if one.machine == mine.machine and one.line == mine.line]
    others = [one for one in twins if set(one.points) - {host}]
    if not others:
        return tr("no other host of this hardware was measured")
    if mine in others:
        counts = {name: len(points) for name, points in mine.points.items()}
        few = counts[host] < FEWEST_RUNS
        if few:
            return tr(
                "too few comparable runs: {runs} of {least}", runs=counts[host], least=FEWEST_RUNS
            )
        most = max(count for name, count in counts.items() if name != host)
        if most < FEWEST_RUNS:
            return tr(
                "too few comparable runs of the others: {runs} of {least}",
                runs=most,
                least=FEWEST_RUNS,
            )
        return tr("no batch size in common with the others")
    other = others[0]
    differing = [
        tr(
            "{name} {here} here, {there} on {hosts}",
            name=tr(name),
            here=_short(mine.conditions.get(name)),
            there=_short(other.conditions.get(name)),
            hosts=", ".join(sorted(other.points)),
        )
        for name in {**mine.conditions, **other.conditions}
        if mine.conditions.get(name) != other.conditions.get(name)
    ]
    return tr("nothing alike: {what}", what="; ".join(differing))


def _split(record: BenchRecord) -> Iterable[tuple[str, Group, dict[int, BenchRow]]]:
    """Yield the groups that a benchmark's rows belong to, with its rows by batch size."""
    found: dict[str, tuple[Group, dict[int, BenchRow]]] = {}
    facts = record.lineage.host
    for row in record.rows:
        if row.latency_ms is None or row.latency_ms.p50 <= 0:
            continue
        conditions = {
            **list_conditions(record, row),
            "preprocessing": record.preprocess,
            "image size": f"{record.img_size} px",
            "reference network": (record.reference_sha256 or "none")[:12],
        }
        if row.boundary == "end_to_end":
            conditions["images"] = record.inputs.sha256[:12]
        line = (row.engine, row.provider, row.boundary)
        which = json.dumps((facts.machine, line, conditions))
        group = Group(facts.machine, facts.label, line, conditions)
        found.setdefault(which, (group, {}))[1][row.batch_size] = row
    for which, (group, rows) in found.items():
        yield which, group, rows


def _take_together(rows: Sequence[BenchRow], measure: Timed) -> tuple[float, float] | None:
    """The mean logarithm over some rows of a run, and its squared standard error."""
    if measure != "latency" and not all(row.relative for row in rows):
        return None
    take = {"latency": _log_ms, "ratio": _log_ratio, "reference": _log_reference_ms}[measure]
    pairs = [take(row) for row in rows]
    return statistics.fmean(one for one, _ in pairs), sum(two for _, two in pairs) / len(pairs) ** 2


def _log_ratio(row: BenchRow) -> tuple[float, float]:
    return row.log_ratio


def _log_reference_ms(row: BenchRow) -> tuple[float, float]:
    """Timed in the rounds of the model, the reference is known about as well as the model."""
    if row.relative is None:
        raise ValueError("this row was not held against a reference network")
    return math.log(row.relative.reference_ms), _log_ms(row)[1]


def _log_ms(row: BenchRow) -> tuple[float, float]:
    from scipy.special import stdtrit

    latency = row.latency_ms
    if latency is None:
        raise ValueError("this row was not timed")
    blocks = len(row.block_medians_ms())
    error = 0.0
    if latency.ci95 is not None and latency.ci95[0] > 0 and blocks > 1:
        low, high = map(math.log, latency.ci95)
        error = (high - low) / 2 / float(stdtrit(blocks - 1, 0.975))
    return math.log(latency.p50), error**2


def _short(text: str | None) -> str:
    return text or "none"
