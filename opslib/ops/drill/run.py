"""The drill from beginning to end: a service, a load on it, the story, the record."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, OpsError
from opslib.core.formatting import format_bytes, format_duration, plural, stamp, utc_now
from opslib.core.kinds import pick_kind
from opslib.core.lineage import record_lineage
from opslib.core.models import find_model_files
from opslib.core.sections import DrillSection
from opslib.inference.facts import describe_inputs
from opslib.inference.images import ImageSet, pick_images
from opslib.ops.drill import steps
from opslib.ops.drill.analysis import Findings, analyse, pack_requests
from opslib.ops.drill.keeper import keep_home
from opslib.ops.drill.record import DrillModel, DrillRecord, Memory
from opslib.ops.drill.rehearsal import Rehearsal
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.target import Target, open_target
from opslib.ops.drill.verdict import decide, list_checks, sum_up
from opslib.serving.load import LoadPlan, LoadResult, start_load
from opslib.telling.operation import Progress
from opslib.timing.disturbance import Disturbance, watch_disturbance
from opslib.timing.lock import hold_timing_lock

CAPACITY_CONNECTIONS = 8
MAX_LOAD_S = 3600.0
STOP_S = 60.0
LATE_SHARE = 0.25
_SAID_AS_FOUND = ("failed", "failed_in_kill", "windows", "calms", "events")


def run_drill(
    config: Config, request: DrillRequest, *, progress: Progress = lambda _share, _what: None
) -> DrillRecord:
    """Return the record of a drill; of the experiment itself nothing is changed. A running service
    (`request.url`) ends on the model it was found with, also when the drill is cut short.

    `progress` is told the share of the expected time that is spent (0..1) and what is being done.
    Raises UsageError: the drill cannot begin, see `open_target` and `DrillRequest`; BusyError: the
    card is serving, or another timed operation runs on this host; OpsError: the service or the load
    broke off in a way that leaves nothing to measure.
    """
    pick_kind(config, request.kind)  # before images are looked for, which takes a while
    images = pick_images(config, "val", request.inputs, limit=config.drill.images)
    notes: list[str] = []
    with (
        hold_timing_lock("a rollback drill", providers=config.onnx.providers),
        watch_disturbance() as watch,
    ):
        progress(0.0, "starting the service")
        with open_target(config, request, notes.append) as target:
            drill = _Drill(config, request, target, images, progress, notes)
            drill.run()
    return drill.describe(watch.result())


def keep_drill(record: DrillRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/drill_<UTC>.json`; return it."""
    return record.write(path or config.records_dir / f"drill_{stamp()}.json")


@dataclass
class _Drill:
    """One drill: what it was told, and what it has measured."""

    config: Config
    request: DrillRequest
    target: Target
    images: ImageSet
    progress: Progress
    notes: list[str]
    started_at: datetime = field(default_factory=utc_now)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.limits: DrillSection = self.config.drill
        self.share = self.request.load_share or self.limits.load_share
        self.swaps = self.request.swaps or self.limits.swaps
        if self.request.long:
            self.swaps = max(self.swaps, self.limits.soak_swaps)

    def report(self, what: str) -> None:
        """Say what is being done."""
        spent = time.monotonic() - self.started
        self.progress(min(0.99, spent / self._expected_s()), what)

    def run(self) -> None:
        """Load the service and tell the story."""
        with self.target.connect() as client:
            self.found = client.version()
            self.model = describe_model(self.target.stable, self.found.sha256)
            self.other_model = describe_model(self.target.others[0])
            self.device = client.health().device or "unknown"
            self.report("measuring the capacity")
            self.capacity = measure_capacity(self._plan(None), self.target.key, self.limits)
            self.rate = min(self.limits.rate_max_per_s, self.share * self.capacity)
            self._check_length()
            with start_load(self._plan(self.rate), self.target.key) as load:
                load.wait_started()
                settle_s = self.limits.settle_s
                self.rehearsal = Rehearsal(self.target, client, load, settle_s, self.report)
                self._tell_and_go_home(self.rehearsal)
                self.result = load.stop(STOP_S)

    def describe(self, disturbance: Disturbance) -> DrillRecord:
        """Return the record of what was measured."""
        seen, limits, requests = self.rehearsal, self.limits, len(self.result.samples)
        found = analyse(self.result, seen.deeds, seen.calms, settle_s=limits.settle_s)
        checks = list_checks(found, seen.injections, seen.memory, limits)
        verdict, exit_code = decide(checks, seen.injections)
        return DrillRecord(
            verdict=verdict,
            finding=sum_up(checks, found, requests),
            exit_code=exit_code,
            lineage=record_lineage(),
            target="url" if self.target.staged is None else "staging",
            form="long" if self.request.long else "short",
            device=self.device,
            model=self.model,
            other_model=self.other_model,
            inputs=describe_inputs(self.images, self.config.root),
            capacity_per_s=round(self.capacity, 1),
            load_share=self.share,
            rate_per_s=round(self.rate, 2),
            p99_ratio_max=limits.p99_ratio_max,
            settle_s=limits.settle_s,
            started_at_utc=self.started_at.isoformat(timespec="seconds"),
            wall_s=round(time.monotonic() - self.started, 1),
            requests=requests,
            mixed=len(found.mixed),
            longest_stall_ms=round(found.longest_stall_ms, 3),
            sent_late_p99_ms=round(found.sent_late_p99_ms, 3),
            injections=tuple(seen.injections),
            checks=checks,
            memory=tuple(seen.memory),
            disturbance=disturbance,
            notes=(*self.notes, *list_notes(found, seen.memory, self.result)),
            raw=pack_requests(self.result.samples),
            **{name: getattr(found, name) for name in _SAID_AS_FOUND},
        )

    def _tell_and_go_home(self, rehearsal: Rehearsal) -> None:
        told = False
        try:
            with keep_home(self.target) as say_home:
                self._tell(rehearsal, say_home)
                told = True
        except OpsError as error:
            if not told:
                raise
            self.notes.append(str(error))  # what was measured is not lost for it

    def _tell(self, rehearsal: Rehearsal, say_home: Callable[[], None]) -> None:
        limits = self.limits
        self.report("baseline: nothing happens")
        rehearsal.watch("baseline", limits.baseline_s)
        self.report("A/A: nothing happens again")
        rehearsal.watch("A/A", limits.aa_s)
        began = time.monotonic()
        steps.swap_and_roll_back(rehearsal, self.swaps)
        if self.request.long:
            took_s = time.monotonic() - began
            missing = limits.soak_requests - self.rate * took_s
            if missing > 0:
                each = self.rate * took_s / self.swaps
                steps.swap_and_roll_back(rehearsal, int(missing / each) + 1)
            steps.look_for_leaks(rehearsal, limits.leak_swaps)
        steps.offer_bad_models(rehearsal)
        steps.reload_twice_at_once(rehearsal)
        steps.kill_and_recover(rehearsal)
        if steps.go_home(rehearsal, self.found):
            say_home()
        self.report("after: nothing happens any more")
        rehearsal.watch("after", limits.baseline_s / 3)

    def _check_length(self) -> None:
        limit = format_duration(MAX_LOAD_S)
        if self.request.long and self.limits.soak_requests / self.rate > MAX_LOAD_S:
            raise InputError(
                f"at {self.rate:.1f} requests a second, {self.limits.soak_requests:,} take "
                f"over {limit}; lower drill.soak_requests"
            )
        if self._expected_s() > MAX_LOAD_S:
            raise InputError(
                f"{self.swaps:,} swaps there and back take over {limit}; ask for fewer"
            )

    def _plan(self, rate_per_s: float | None) -> LoadPlan:
        return LoadPlan(
            url=self.target.url,
            images=self.images.paths,
            requests=int((rate_per_s or 10_000) * 2 * MAX_LOAD_S),
            rate_per_s=rate_per_s,
            connections=64 if rate_per_s else CAPACITY_CONNECTIONS,
        )

    def _expected_s(self) -> float:
        limits = self.limits
        steady_s = limits.capacity_s + limits.baseline_s + limits.aa_s + 30.0
        leaks_s = limits.leak_swaps * 1.2 if self.request.long else 0.0
        return steady_s + self.swaps * 2 * (limits.settle_s + 1.0) + leaks_s


def measure_capacity(plan: LoadPlan, key: str, limits: DrillSection) -> float:
    """Return how many requests a second the service answers when it is never left waiting; raises
    InputError where it refuses them."""
    with start_load(plan, key) as load:
        load.wait_started()
        time.sleep(limits.capacity_s)
        result = load.stop(STOP_S)
    good = len(result.samples) - len(result.failures)
    if result.failures and good < len(result.samples) / 2:
        first = result.failures[0]
        advice = {
            429: "; start it with a larger RATE_LIMIT_PER_MIN for the drill",
            401: "; API_KEY in .env is not its key",
        }.get(first.status, "")
        raise InputError(
            f"{plan.url}{plan.route}: answers {first.status or 'nothing'} before anything was done "
            f"to it: {first.error}{advice}"
        )
    return good / result.wall_s


def list_notes(found: Findings, memory: Sequence[Memory], load: LoadResult) -> list[str]:
    """Return what a reader must know beside the figures."""
    notes = [f"Failed outside the kill: {one}" for one in found.first_failures]
    asked = [one for one in found.events if one.kind == "swap"]
    resident = sum(bool(one.resident) for one in asked)
    if resident:
        notes.append(
            f"{resident} of {plural(len(asked), 'swap')} found the model in memory: they show a "
            "switch, and no load."
        )
    swaps = [format_bytes(one.rss_bytes) for one in memory if one.during == "swap"]
    if len(swaps) > 1:
        notes.append(
            f"Memory of the service after the first switch {swaps[0]}, "
            f"after {plural(len(swaps), 'switch', 'switches')} {swaps[-1]}."
        )
    base = next((one.p99_ms for one in found.windows if one.kind == "baseline"), None)
    if base and found.sent_late_p99_ms > LATE_SHARE * base:
        notes.append(
            f"The load generator itself was late by up to {found.sent_late_p99_ms:.1f} ms (99th "
            "percentile): the host has too few free cores for it, and latencies hold that too."
        )
    planned = load.plan.rate_per_s or 0.0
    if load.rate_per_s < 0.95 * planned:
        notes.append(f"Sent at {load.rate_per_s:.0f} requests a second instead of {planned:.0f}.")
    return notes


def describe_model(path: Path, sha256: str | None = None) -> DrillModel:
    """Return the name and digest of a model; one that is not on this host stays unverified."""
    if sha256 is None and path.exists():
        sha256 = find_model_files(path).digest()
    return DrillModel(name=path.name, sha256=sha256 or "unverified")
