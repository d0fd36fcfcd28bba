"""A rollback drill told to people: its tables, its figures and the values it publishes."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.formatting import format_ms
from opslib.ops.drill.figures import (
    describe_distribution,
    describe_memory,
    describe_timeline,
    draw_distribution,
    draw_memory,
    draw_timeline,
)
from opslib.ops.drill.memory import growth_pct
from opslib.ops.drill.record import DrillEvent, DrillRecord, Interval, WindowKind, WindowStats
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

RESULT_WORDS = {"pass": "yes", "fail": "no", "inconclusive": "not decided"}
WINDOW_TITLES = {
    "baseline": "before (baseline)",
    "A/A": "before, again (A/A)",
    "swaps and rollbacks": "during swaps and rollbacks",
    "swaps": "… swaps",
    "rollbacks": "… rollbacks",
    "bad models": "while a bad model is tried",
    "two at once": "two reloads at once",
    "kill -9": "kill -9 and recovery",
    "leak swaps": "while looking for leaks",
    "after": "after",
}


def checks_frame(record: DrillRecord) -> DataFrame:
    """Return the lines of the verdict: what is promised, what was measured, whether it was kept."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "promise": one.name,
                "measured": one.value,
                "allowed": one.limit,
                "kept": RESULT_WORDS[one.result],
                "why": one.reason,
            }
            for one in record.checks
        ]
    )


def windows_frame(record: DrillRecord) -> DataFrame:
    """Return failures and latencies before, during and after, with 95 % intervals."""
    import pandas as pd

    ordered = sorted(record.windows, key=lambda one: list(WINDOW_TITLES).index(one.kind))
    return pd.DataFrame([_window_row(one) for one in ordered])


def switches_frame(record: DrillRecord) -> DataFrame:
    """Return each swap and rollback: how long until its answer and until the new model's first."""
    import pandas as pd

    events = record.events_of("swap", "rollback", "back")
    return pd.DataFrame([_switch_row(one) for one in events])


def injections_frame(record: DrillRecord) -> DataFrame:
    """Return what was injected, what is promised then, what was seen."""
    import pandas as pd

    words = {True: "yes", False: "no", None: "not tried"}
    return pd.DataFrame(
        [
            {
                "injected": one.injected,
                "promised": one.promised,
                "seen": one.seen,
                "kept": words[one.held],
            }
            for one in record.injections
        ]
    )


def show_notes(record: DrillRecord) -> None:
    """Show `list_notes` as a list."""
    from IPython.display import display

    lines = list_notes(record)
    html = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
    display({"text/html": html, "text/plain": "\n".join(lines)}, raw=True)  # type: ignore[no-untyped-call]


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


def show_memory(record: DrillRecord) -> None:
    """Show the service's memory over its switches, or say why there is nothing to show."""
    from opslib.telling.figures import show_figure

    show_figure(partial(draw_memory, record), alt=describe_memory(record))


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


def snapshot_table(record: DrillRecord) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of text that stand in `docs/PERFORMANCE.md`."""
    columns = ["Load", "Window", "Windows", "Requests", "Failed", "p50 ms", "p99 ms (95 %)"]
    kinds: tuple[WindowKind, ...] = ("baseline", "A/A", "swaps", "rollbacks", "kill -9", "after")
    rows = []
    for kind in kinds:
        one = record.window(kind)
        if one is None:
            continue
        rows.append(
            [
                f"{record.rate_per_s:.0f}/s",
                WINDOW_TITLES[kind].removeprefix("… "),
                str(one.windows),
                f"{one.requests:,}",
                str(one.failed),
                format_ms(one.p50_ms),
                f"{format_ms(one.p99_ms)}{_interval(one.p99_ci95_ms)}",
            ]
        )
    return columns, rows


def _share_of_capacity(record: DrillRecord) -> str:
    if not record.capacity_per_s:
        return "no capacity was measured"
    share = 100 * record.rate_per_s / record.capacity_per_s
    return f"{share:.0f} % of the measured capacity of {record.capacity_per_s:,.0f}"


def _window_row(one: WindowStats) -> dict[str, object]:
    return {
        "window": WINDOW_TITLES[one.kind],
        "number": one.windows,
        "seconds": f"{one.duration_s:.1f}",
        "requests": one.requests,
        "failed": one.failed,
        "p50 ms": f"{format_ms(one.p50_ms)}{_interval(one.p50_ci95_ms)}" if one.p50_ms else None,
        "p99 ms": f"{format_ms(one.p99_ms)}{_interval(one.p99_ci95_ms)}" if one.p99_ms else None,
        "worst ms": format_ms(one.worst_ms) if one.worst_ms else None,
    }


def _switch_row(one: DrillEvent) -> dict[str, object]:
    loaded = {True: "kept in memory", False: "loaded and checked", None: None}
    return {
        "at s": f"{one.start_s:.1f}",
        "switch": {"swap": "swap A → B", "back": "back home, A"}.get(one.kind, "roll back B → A"),
        "model was": loaded[one.resident],
        "answered after ms": format_ms(1000 * (one.end_s - one.start_s)),
        "first answer after ms": format_ms(1000 * one.ready_s) if one.ready_s else None,
        "generation": one.mark_after.removeprefix("generation ") if one.mark_after else None,
    }


def _interval(ends: Interval | None) -> str:
    return f" ({format_ms(ends[0])}–{format_ms(ends[1])})" if ends else ""
