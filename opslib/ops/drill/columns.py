"""The columns of a drill: of its checks, windows, switches and faults."""

from opslib.core.formatting import format_ms
from opslib.core.language import tr
from opslib.ops.drill.record import (
    DrillEvent,
    DrillRecord,
    Injection,
    Interval,
    PromiseCheck,
    WindowKind,
    WindowStats,
)
from opslib.telling.columns import DOCUMENT, PAGE, Column, DocumentTable, document_table

RESULT_WORDS = {"pass": "yes", "fail": "no", "inconclusive": "not decided"}
HELD_WORDS = {True: "yes", False: "no", None: "not tried"}
SWITCH_WORDS = {"swap": "swap A → B", "rollback": "roll back B → A", "back": "back home, A"}
LOAD_WORDS = {True: "kept in memory", False: "loaded and checked", None: None}
WINDOW_TITLES: dict[WindowKind, str] = {
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
IN_DOCUMENTS: tuple[WindowKind, ...] = ("baseline", "A/A", "swaps", "rollbacks", "kill -9", "after")

CHECK_COLUMNS: tuple[Column[PromiseCheck], ...] = (
    Column("promise", lambda check: tr(check.name)),
    Column("measured", lambda check: check.value),
    Column("allowed", lambda check: check.limit),
    Column("kept", lambda check: RESULT_WORDS[check.result]),
    Column("why", lambda check: check.reason, where=PAGE),
)
SWITCH_COLUMNS: tuple[Column[DrillEvent], ...] = (
    Column("at s", lambda event: f"{event.start_s:.1f}"),
    Column("switch", lambda event: SWITCH_WORDS[event.kind]),
    Column("model was", lambda event: LOAD_WORDS[event.resident]),
    Column("answered after ms", lambda event: format_ms(1000 * (event.end_s - event.start_s))),
    Column(
        "first answer after ms", lambda event: event.ready_s and format_ms(1000 * event.ready_s)
    ),
    Column(
        "generation", lambda event: (event.mark_after or "").removeprefix("generation ") or None
    ),
)
INJECTION_COLUMNS: tuple[Column[Injection], ...] = (
    Column("injected", lambda one: one.injected),
    Column("promised", lambda one: one.promised),
    Column("seen", lambda one: one.seen),
    Column("kept", lambda one: HELD_WORDS[one.held]),
)


def window_columns(record: DrillRecord) -> list[Column[WindowStats]]:
    """Return the columns of a drill's windows: failures and latencies with 95 % intervals."""
    return [
        Column("model", lambda _: record.model.name, where=DOCUMENT),
        Column("load", lambda _: f"{record.rate_per_s:.0f}/s", where=DOCUMENT),
        Column("window", lambda one: WINDOW_TITLES[one.kind], where=PAGE),
        Column("window", lambda one: WINDOW_TITLES[one.kind].removeprefix("… "), where=DOCUMENT),
        Column("number", lambda one: one.windows),
        Column("seconds", lambda one: f"{one.duration_s:.1f}", where=PAGE),
        Column("requests", lambda one: one.requests, "{:,}".format),
        Column("failed", lambda one: one.failed),
        Column("p50 ms (95 %)", lambda one: _latency(one.p50_ms, one.p50_ci95_ms)),
        Column("p99 ms (95 %)", lambda one: _latency(one.p99_ms, one.p99_ci95_ms)),
        Column("worst ms", lambda one: one.worst_ms and format_ms(one.worst_ms), where=PAGE),
    ]


def list_windows(record: DrillRecord) -> list[WindowStats]:
    """Return the windows in the order of `WINDOW_TITLES`."""
    return sorted(record.windows, key=lambda one: list(WINDOW_TITLES).index(one.kind))


def snapshot(record: DrillRecord) -> DocumentTable:
    """Return the table that stands in `docs/PERFORMANCE.md`."""
    windows = filter(None, map(record.window, IN_DOCUMENTS))
    return document_table(window_columns(record), windows)


def _latency(value_ms: float | None, ends: Interval | None) -> str | None:
    if not value_ms:
        return None
    interval = f" ({format_ms(ends[0])}–{format_ms(ends[1])})" if ends else ""
    return f"{format_ms(value_ms)}{interval}"
