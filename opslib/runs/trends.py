"""A figure over all runs that can be held beside each other, and the steps in its level."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from opslib.core.errors import InputError
from opslib.core.files import sha256_bytes
from opslib.core.language import mark, tr
from opslib.core.lineage import Lineage
from opslib.runs.catalogue import RunRow, drop_ahead, name_hosts
from opslib.runs.run_record import RunRecord
from opslib.telling.scraps import Scrap
from opslib.timing.steps import FEWEST_RUNS, SHORTEST, find_steps

# Units in which a change is a difference, not a ratio.
SHARES = ("pp", "points", "%")


@dataclass(frozen=True)
class Step:
    """Where the level changed: the place of the first run after it, the level before and after, and
    whether that is one for the better."""

    at: int
    before: float
    after: float
    better: bool


@dataclass(frozen=True)
class Trend:
    """One figure of one notebook with the same parameters on one host, the oldest run first."""

    scrap: Scrap
    runs: tuple[RunRow, ...]
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    host_name: str | None = None

    @property
    def label(self) -> str:
        """The figure in words, with the parameters that were changed."""
        label, asked = self.scrap.label or self.scrap.name.replace("_", " "), self.runs[-1].asked
        return f"{label} ({asked})" if asked else label

    @property
    def page(self) -> str:
        """The file name of the trend's page; it stays the same while runs are added."""
        last, scrap = self.runs[-1], self.scrap
        kind = (last.notebook, scrap.name, last.machine, last.values_digest, scrap.unit)
        named = (self.host_name,) if self.host_name else ()
        name = re.sub(r"[^a-z0-9]+", "-", f"{last.notebook} {scrap.name}".lower()).strip("-")
        return f"{name[:80]}-{sha256_bytes(repr((*kind, *named, scrap.better)).encode())[:8]}.html"

    @cached_property
    def digest(self) -> str:
        """A digest of everything that the trend's page shows."""
        said = [(run.href, run.started, run.word, run.host, value) for run, value in self]
        return sha256_bytes(repr((said, self.intervals, self.label)).encode())[:16]

    @property
    def can_tell(self) -> bool:
        """Whether there are runs enough for a step to be told."""
        return len(self.values) >= FEWEST_RUNS

    @property
    def is_ratio(self) -> bool:
        """Whether a change is told in percent of the figure; else as a difference."""
        return self.scrap.unit not in SHARES and min(self.values) > 0

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps, the oldest first. The level of a stretch is the median of its runs."""
        return self._find_steps(len(self.values))

    def was_told(self, step: Step, runs: int) -> bool:
        """Return whether a step was found in the oldest so many runs, or in fewer of them, its
        third run among them; where it is may have seemed a run or two off then."""

        def found_in(count: int) -> bool:
            near = (one for one in self._find_steps(count) if abs(one.at - step.at) < SHORTEST)
            return any(one.better == step.better for one in near)

        least = step.at + SHORTEST
        return runs >= least and any(map(found_in, (runs, *range(least, runs))))

    def _find_steps(self, runs: int) -> tuple[Step, ...]:
        """The steps that the oldest so many runs tell."""
        values = self.values[:runs]
        series = np.log(values) if self.is_ratio else np.asarray(values)
        places = find_steps(series)
        ends = [0, *places, len(values)]
        levels = [float(np.median(values[start:end])) for start, end in pairwise(ends)]
        lower = self.scrap.better == "lower"
        return tuple(
            Step(at, before, after, better=(after < before) == lower)
            for at, (before, after) in zip(places, pairwise(levels), strict=True)
            if after != before
        )

    def __iter__(self) -> Any:
        return iter(zip(self.runs, self.values, strict=True))


def list_trends(rows: Iterable[RunRow]) -> list[Trend]:
    """Return the trends of these runs, sorted by notebook, figure, host and parameters.

    Runs that did not finish, that tell no host, or that are dated after now take no part.
    """
    found: dict[tuple[str, ...], list[tuple[RunRow, Scrap]]] = {}
    known = drop_ahead(rows)
    names = name_hosts(known)
    for row in known:
        if row.finished and row.machine and row.started:
            for scrap in row.measured:
                host = (row.machine, names[row.id] or "")
                which = (row.notebook, scrap.name, *host, str(row.values_digest))
                # A figure whose unit or better direction changed is another figure.
                found.setdefault((*which, str(scrap.unit), str(scrap.better)), []).append(
                    (row, scrap)
                )
    trends = []
    for _, members in sorted(found.items()):
        members.sort(key=lambda one: (one[0].started, one[0].id))
        runs = tuple(row for row, _ in members)
        values = tuple(float(scrap.value) for _, scrap in members)
        intervals = tuple(scrap.interval for _, scrap in members)
        name = names[runs[-1].id]
        trends.append(Trend(members[-1][1], runs, values, intervals, name))
    return trends


def describe_change(trend: Trend, step: Step) -> str:
    """Return the size of a step in words: `+8.3 %` of a ratio, else `+0.42 points`."""
    if trend.is_ratio:
        return f"{100 * (step.after / step.before - 1):+.1f} %".replace("-", "−")
    unit = tr("points") if trend.scrap.unit in SHARES else trend.scrap.unit or ""
    return f"{step.after - step.before:+.3g} {unit}".strip().replace("-", "−")


def explain_step(root: Path, before: RunRow, after: RunRow) -> list[str]:
    """Return what differs between the runs on both sides of a step, in a few words each."""
    try:
        old, new = (RunRecord.read(root / row.record_path) for row in (before, after))
    except InputError:
        return [tr("one of the two runs is no longer there")]
    none = tr("none")
    differing = [
        f"{tr(what)}: {was or none} → {now or none}"
        for what, was, now in _list_conditions(old, new)
        if was != now
    ]
    same = tr("nothing that the runs tell of: same commit, packages, model and driver")
    return differing or [same]


def _list_conditions(old: RunRecord, new: RunRecord) -> Iterable[tuple[str, Any, Any]]:
    if old.lineage and new.lineage:
        yield mark("commit"), _commit(old.lineage), _commit(new.lineage)
        for name in sorted({*old.lineage.versions, *new.lineage.versions}):
            yield name, old.lineage.versions.get(name), new.lineage.versions.get(name)
        yield "Python", old.lineage.host.python, new.lineage.host.python
        yield mark("system"), old.lineage.host.os, new.lineage.host.os
        yield mark("driver"), _drivers(old.lineage), _drivers(new.lineage)
    for name in sorted({*old.evidence, *new.evidence}):
        yield name, old.evidence.get(name), new.evidence.get(name)


def _drivers(lineage: Lineage) -> str:
    return ", ".join(sorted({gpu.driver for gpu in lineage.host.gpus}))


def _commit(lineage: Lineage) -> str:
    return lineage.git_sha + (tr(" with changes") if lineage.git_dirty else "")
