"""From deeds and requests to events, windows and figures, on the load's own clock."""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from opslib.ops.drill.record import Calm, DrillEvent, RawRequests, WindowKind, WindowStats
from opslib.ops.drill.rehearsal import Deed
from opslib.ops.drill.windows import (
    AnswerLog,
    Timings,
    Window,
    describe_window,
    find_recovery,
    longest_stall_ms,
    mark_of,
)
from opslib.serving.load import LoadResult, Sample

T = TypeVar("T")
SWITCHES = ("swap", "rollback", "two at once", "switch", "leak", "back")
_OF_DEED = ("kind", "name", "status", "stage", "resident")
_WINDOWS_OF: dict[WindowKind, tuple[str, ...]] = {
    "swaps and rollbacks": ("swap", "rollback"),
    "swaps": ("swap",),
    "rollbacks": ("rollback",),
    "bad models": ("bad model",),
    "two at once": ("two at once",),
    "kill -9": ("kill -9",),
    "leak swaps": ("leak",),
}


@dataclass(frozen=True)
class Findings:
    """What the requests of a drill say. `failed` counts requests outside the kill's window,
    `failed_in_kill` those inside; `recovery_s` is from kill -9 to the first answer, None where
    there was no kill or no answer."""

    calms: tuple[Calm, ...]
    events: tuple[DrillEvent, ...]
    windows: tuple[WindowStats, ...]
    failed: int
    failed_in_kill: int
    first_failures: tuple[str, ...]
    mixed: dict[int, str]
    longest_stall_ms: float
    recovery_s: float | None
    sent_late_p99_ms: float


def analyse(
    load: LoadResult,
    deeds: Sequence[Deed],
    calms: Sequence[tuple[WindowKind, float, float]],
    *,
    settle_s: float,
) -> Findings:
    """Return what the load's requests say about what was done to the service."""
    samples, zero = load.samples, load.started_clock_s
    timings = Timings.of(samples)
    events = place_events(samples, deeds, zero, settle_s, load.wall_s)
    spans = tuple(
        Calm(kind=kind, start_s=start - zero, end_s=end - zero) for kind, start, end in calms
    )
    windows: dict[WindowKind, list[Window]] = {}
    for one in list_windows(events, spans):
        windows.setdefault(one.kind, []).append(one)
    in_kill = find_killed(timings, windows.get("kill -9", ()))
    mixed = find_mixed(samples, events)
    counted = [one for one, killed in zip(samples, in_kill, strict=True) if not killed]
    failures = [one for one in counted if one.failed]
    late = [one.sent_late_ms for one in counted if one.sent_late_ms is not None]
    kill = next((one for one in events if one.kind == "kill -9"), None)
    return Findings(
        calms=spans,
        events=events,
        windows=tuple(describe_window(kind, of, timings) for kind, of in windows.items()),
        failed=len(failures),
        failed_in_kill=int((timings.failed & in_kill).sum()),
        first_failures=tuple(
            f"{one.status or 'no answer'} at {one.due_s:.1f} s: {one.error}" for one in failures[:3]
        ),
        mixed=mixed,
        longest_stall_ms=longest_stall_ms(timings, in_kill | timings.failed),
        recovery_s=kill.ready_s if kill else None,
        sent_late_p99_ms=float(np.quantile(late, 0.99)) if late else 0.0,
    )


def place_events(
    samples: Sequence[Sample], deeds: Sequence[Deed], zero: float, settle_s: float, end_s: float
) -> tuple[DrillEvent, ...]:
    """Return the deeds as events of the load, each with the answer that first showed its effect."""
    ordered = sorted(deeds, key=lambda deed: deed.start)
    starts = [deed.start - zero for deed in ordered]
    answers = AnswerLog.of(samples)
    events = []
    for number, (deed, start) in enumerate(zip(ordered, starts, strict=True)):
        end = deed.end - zero
        until = min((one for one in starts[number + 1 :] if one > end), default=end_s)
        before = answers.mark_before(start)
        first, after, window_end = None, before, end
        if deed.kind == "kill -9":
            first = find_recovery(Timings.of(samples), start)
            after = answers.mark_before(first) if first is not None else None
            window_end = end_s if first is None else first + settle_s
        elif deed.kind in SWITCHES and deed.accepted:
            first, after = answers.first_other(before, start, until) or (None, before)
            window_end = min(until, max(first or end, end) + settle_s)
        events.append(
            DrillEvent(
                start_s=start,
                end_s=end,
                first_answer_s=first,
                window_end_s=window_end,
                mark_before=before,
                mark_after=after,
                **{name: getattr(deed, name) for name in _OF_DEED},
            )
        )
    return tuple(events)


def list_windows(events: Sequence[DrillEvent], calms: Sequence[Calm]) -> list[Window]:
    """Return every window, those of nothing happening first."""
    windows = [Window(one.kind, one.start_s, one.end_s) for one in calms]
    for kind, of in _WINDOWS_OF.items():
        windows += [Window(kind, e.start_s, e.window_end_s) for e in events if e.kind in of]
    return windows


def find_killed(
    timings: Timings, kills: Sequence[Window]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which requests a kill may have hit: those in flight then, and those due until the
    service had been back for a while."""
    hit = np.zeros(len(timings.due_s), dtype=np.bool_)
    for kill in kills:
        hit |= (timings.done_s >= kill.start_s) & (timings.due_s < kill.end_s)
    return hit


def pack_requests(samples: Sequence[Sample]) -> RawRequests:
    """Return every request in columns, as a record keeps them."""
    marks: dict[str, int] = {}
    known = [None if one.failed else mark_of(one) for one in samples]
    numbers = [-1 if one is None else marks.setdefault(one, len(marks)) for one in known]
    return RawRequests(
        marks=tuple(marks),
        due_s=tuple(round(one.due_s, 4) for one in samples),
        latency_ms=tuple(round(one.latency_ms, 3) for one in samples),
        sent_late_ms=tuple(round(one.sent_late_ms or 0.0, 3) for one in samples),
        status=tuple(0 if one.error and one.status == 200 else one.status for one in samples),
        mark=tuple(numbers),
    )


def find_mixed(samples: Sequence[Sample], events: Sequence[DrillEvent]) -> dict[int, str]:
    """Return the answers that mix models, by their index, each with what is wrong.

    - the body and the header name different generations;
    - one generation stands for two models;
    - the prediction is not what this model says of this image otherwise;
    - the model before answered a request that was due after the switch was confirmed.
    """
    found: dict[int, str] = {}
    model_of: dict[int, Counter[str]] = defaultdict(Counter)
    said: dict[tuple[str, int], Counter[tuple[int, ...]]] = defaultdict(Counter)
    good = [(index, one) for index, one in enumerate(samples) if not one.failed]
    for _, one in good:
        model = one.model_sha256 or one.version_tag
        if one.generation is not None and model is not None:
            model_of[one.generation][model] += 1
        said[model or "", one.image][one.class_ids] += 1
    for index, one in good:
        model = one.model_sha256 or one.version_tag
        if one.header_generation is not None and one.header_generation != one.generation:
            found[index] = "body and header name different generations"
        elif one.generation in model_of and model != _most(model_of[one.generation]):
            found[index] = "one generation stands for two models"
        elif _most(said[model or "", one.image]) != one.class_ids:
            found[index] = "the prediction is another model's"
    for index in _find_stale(samples, events) - found.keys():
        found[index] = "the model before answered after the switch was confirmed"
    return found


def _most(count: Counter[T]) -> T:
    return count.most_common(1)[0][0]


def _find_stale(samples: Sequence[Sample], events: Sequence[DrillEvent]) -> set[int]:
    """Requests that were due after a switch was confirmed, answered before anything else was done,
    and got the model that had been there before it. Of two switches at once either may come last,
    so that the model before may be the right one."""
    ordered = sorted(events, key=lambda event: event.start_s)
    starts = [event.start_s for event in ordered]
    found = set()
    for index, one in enumerate(samples):
        at = bisect(starts, one.due_s) - 1
        if one.failed or at < 0:
            continue
        last = ordered[at]
        switched = last.status == 200 and last.first_answer_s is not None
        if not switched or last.mark_before is None or one.due_s <= last.end_s:
            continue
        if at > 0 and ordered[at - 1].end_s > last.start_s:
            continue
        undisturbed = at + 1 == len(starts) or one.due_s + one.latency_ms / 1000 < starts[at + 1]
        if undisturbed and mark_of(one) == last.mark_before:
            found.add(index)
    return found
