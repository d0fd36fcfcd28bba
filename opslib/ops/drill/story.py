"""A rollback drill told to people: its tables, its figures and the values it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.ops.drill.columns import (
    CHECK_COLUMNS,
    INJECTION_COLUMNS,
    SWITCH_COLUMNS,
    WINDOW_TITLES,
    window_columns,
)
from opslib.ops.drill.figures import (
    describe_distribution,
    describe_memory,
    describe_timeline,
    draw_distribution,
    draw_memory,
    draw_timeline,
)
from opslib.ops.drill.memory import growth_pct
from opslib.ops.drill.record import DrillRecord
from opslib.telling.columns import page_table
from opslib.telling.scraps import publish, publish_outcome

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "describe_distribution",
    "describe_memory",
    "describe_timeline",
    "draw_distribution",
    "draw_memory",
    "draw_timeline",
]


def checks_frame(record: DrillRecord) -> DataFrame:
    """Return the lines of the verdict: what is promised, what was measured, whether it was kept."""
    return page_table(CHECK_COLUMNS, record.checks)


def windows_frame(record: DrillRecord) -> DataFrame:
    """Return failures and latencies before, during and after, with 95 % intervals."""
    ordered = sorted(record.windows, key=lambda one: list(WINDOW_TITLES).index(one.kind))
    return page_table(window_columns(record), ordered)


def switches_frame(record: DrillRecord) -> DataFrame:
    """Return each swap and rollback: how long until its answer and until the new model's first."""
    return page_table(SWITCH_COLUMNS, record.events_of("swap", "rollback", "back"))


def injections_frame(record: DrillRecord) -> DataFrame:
    """Return what was injected, what is promised then, what was seen."""
    return page_table(INJECTION_COLUMNS, record.injections)


def list_notes(record: DrillRecord) -> list[str]:
    """Return what a reader must know beside the figures."""
    what = "a staging service on a copy of the experiment"
    where = what if record.target == "staging" else "a running service"
    lines = [
        f"Drilled: {where}, on {record.device}. A, the model it was found with, is "
        f"{record.model.name}; B, the other, is {record.other_model.name}.",
        f"Load: {record.rate_per_s:.0f} requests a second, constant: "
        f"{_share_of_capacity(record)} (asked for: {100 * record.load_share:.0f} %, within "
        "drill.rate_max_per_s). Each is sent when it is due and its latency counts from then, so "
        "that no stall is hidden.",
        f"A swap window is from the request to {record.settle_s:g} s after the first answer of the "
        "new model. Requests of the kill are counted apart: a killed process cannot answer.",
    ]
    lines += record.inputs.notes()
    lines += record.notes
    watched = record.disturbance
    if watched.load_average is not None:
        lines.append(f"Load average at the end {watched.load_average:.1f}.")
    return lines


def publish_drill(record: DrillRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a drill as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    publish("failed", record.failed, better="lower", label="Failed requests outside the kill")
    base, swaps = record.window("baseline"), record.window("swaps and rollbacks")
    if base and base.p99_ms:
        publish("baseline_p99_ms", round(base.p99_ms, 2), unit="ms", label="p99 before")
    if base and swaps and base.p99_ms and swaps.p99_ms:
        publish(
            "swap_p99_ratio",
            round(swaps.p99_ms / base.p99_ms, 2),
            unit="×",
            better="lower",
            label="p99 in swap windows against before",
        )
    for name, kind, label in (
        ("swap_ms", "swap", "Slowest swap, until the new model answers"),
        ("rollback_ms", "rollback", "Slowest rollback, until the old model answers"),
    ):
        times = [event.ready_s for event in record.events if event.kind == kind and event.ready_s]
        if times:
            publish(name, round(1000 * max(times), 1), unit="ms", better="lower", label=label)
    publish(
        "longest_stall_ms",
        round(record.longest_stall_ms, 1),
        unit="ms",
        better="lower",
        label="Longest stall",
    )
    growth = growth_pct(record.memory)
    if growth is not None:
        publish("memory_growth_pct", round(growth, 2), unit="%", label="Memory growth")


def _share_of_capacity(record: DrillRecord) -> str:
    if not record.capacity_per_s:
        return "no capacity was measured"
    share = 100 * record.rate_per_s / record.capacity_per_s
    return f"{share:.0f} % of the measured capacity of {record.capacity_per_s:,.0f}"
