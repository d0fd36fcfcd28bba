"""A rollback drill told to people: its tables, its figures and the values it publishes."""

from operator import attrgetter
from pathlib import Path

from opslib.core.language import tr
from opslib.ops.drill import columns
from opslib.ops.drill.record import DrillRecord, growth_pct
from opslib.telling.columns import page_of
from opslib.telling.scraps import publish, publish_outcome

checks_frame = page_of(columns.CHECK_COLUMNS, attrgetter("checks"))
windows_frame = page_of(columns.window_columns, columns.list_windows)
switches_frame = page_of(
    columns.SWITCH_COLUMNS, lambda record: record.events_of("swap", "rollback", "back")
)
injections_frame = page_of(columns.INJECTION_COLUMNS, attrgetter("injections"))


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
    publish("failed", record.failed, better="lower", label=tr("Failed requests outside the kill"))
    base, swaps = (record.window(kind) for kind in ("baseline", "swaps and rollbacks"))
    if base and base.p99_ms:
        value_ms, ends_ms = round(base.p99_ms, 2), base.p99_ci95_ms
        publish("baseline_p99_ms", value_ms, unit="ms", label=tr("p99 before"), interval=ends_ms)
    if base and swaps and base.p99_ms and swaps.p99_ms:
        ratio, label = (
            round(swaps.p99_ms / base.p99_ms, 2),
            tr("p99 in swap windows against before"),
        )
        publish("swap_p99_ratio", ratio, unit="×", better="lower", label=label)
    times_ms = {
        kind: 1000 * max((event.ready_s or 0.0 for event in record.events_of(kind)), default=0.0)
        for kind in ("swap", "rollback")
    }
    for name, value_ms, label in (
        ("swap_ms", times_ms["swap"], tr("Slowest swap, until the new model answers")),
        ("rollback_ms", times_ms["rollback"], tr("Slowest rollback, until the old model answers")),
        ("longest_stall_ms", record.longest_stall_ms, tr("Longest stall")),
    ):
        if value_ms or name == "longest_stall_ms":
            publish(name, round(value_ms, 1), unit="ms", better="lower", label=label)
    growth = growth_pct(record.memory)
    if growth is not None:
        publish("memory_growth_pct", round(growth, 2), unit="%", label=tr("Memory growth"))


def _share_of_capacity(record: DrillRecord) -> str:
    if not record.capacity_per_s:
        return "no capacity was measured"
    share = 100 * record.rate_per_s / record.capacity_per_s
    return f"{share:.0f} % of the measured capacity of {record.capacity_per_s:,.0f}"
