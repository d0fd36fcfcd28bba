"""The columns of a benchmark: of its rows, its comparisons, and of one held against another."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from opslib.core.formatting import format_bytes, format_ms
from opslib.ops.bench.compare import RecordComparison, RowComparison
from opslib.ops.bench.record import ENGINE_NAMES, BenchRecord, BenchRow
from opslib.telling.columns import DOCUMENT, PAGE, TERMINAL, Column, DocumentTable, document_table
from opslib.timing.paired import Comparison

_SCREENS = TERMINAL | PAGE


class Paired(NamedTuple):
    """A paired comparison and what was compared."""

    what: str
    comparison: Comparison


def row_columns(record: BenchRecord, notes: Sequence[str] = ()) -> list[Column[BenchRow]]:
    """Return the columns of a benchmark's rows. `notes`: those that a terminal prints below the
    table, numbered from 1."""

    def model(row: BenchRow) -> str | None:
        measured = record.model_of(row.engine)
        return measured.name if measured else None

    def marked(row: BenchRow) -> str:
        note = note_of(row)
        return f"{row.status} [{notes.index(note) + 1}]" if note in notes else row.status

    return [
        Column("model", model, where=DOCUMENT),
        Column("engine", lambda row: row.engine, where=TERMINAL),
        Column("engine", lambda row: ENGINE_NAMES[row.engine], where=PAGE | DOCUMENT),
        Column("on", lambda row: row.provider),
        Column("boundary", lambda row: row.boundary_name, where=TERMINAL | DOCUMENT),
        Column("batch", lambda row: row.batch_size, right=True),
        Column("p50 ms (95 % interval)", _with_interval, where=DOCUMENT),
        Column("p50 ms", lambda row: row.p50_ms, format_ms, right=True, where=_SCREENS),
        Column("± %", lambda row: row.half_width_pct, "{:.1f}".format, right=True, where=_SCREENS),
        Column("× reference", _relative, right=True),
        Column("p90 ms", lambda row: _latency(row, "p90"), format_ms, right=True, where=_SCREENS),
        Column("p99 ms", lambda row: _latency(row, "p99"), format_ms, right=True, where=_SCREENS),
        Column("first ms", lambda row: row.first_run_ms, format_ms, right=True, where=PAGE),
        Column("img/s", lambda row: row.throughput_img_s, "{:,.0f}".format, right=True),
        Column("memory", lambda row: _bytes(row.peak_rss_bytes), right=True, where=PAGE),
        Column("status", lambda row: row.status, where=PAGE),
        Column("status", marked, where=TERMINAL),
    ]


PAIR_COLUMNS: tuple[Column[Paired], ...] = (
    Column("comparison", lambda pair: pair.what),
    Column("speed-up", lambda pair: f"{pair.comparison.speedup:.3f} ×"),
    Column("95 % interval", lambda pair: "{:.3f} to {:.3f}".format(*pair.comparison.speedup_ci95)),
    Column("rounds", lambda pair: pair.comparison.rounds),
    Column("verdict", lambda pair: pair.comparison.verdict),
)


def change_columns(comparison: RecordComparison) -> list[Column[RowComparison]]:
    """Return the columns of a benchmark held against others."""

    def outcome(row: RowComparison) -> str:
        return f"{row.outcome}: {row.reason}" if row.reason else row.outcome

    interval = f"{100 * comparison.confidence:.5g} % interval"
    return [
        Column("engine", lambda row: row.engine),
        Column("provider", lambda row: row.provider),
        Column("batch", lambda row: row.batch_size or "all", right=True),
        Column("boundary", lambda row: row.boundary.replace("_", " ")),
        Column("before ms", lambda row: row.baseline_p50_ms, format_ms, right=True),
        Column("after ms", lambda row: row.candidate_p50_ms, format_ms, right=True),
        Column("change", lambda row: row.change_pct, "{:+.1f} %".format, right=True),
        Column(interval, _change_interval, right=True),
        Column("outcome", outcome),
    ]


def list_pairs(record: BenchRecord) -> Iterator[Paired]:
    """Yield the paired comparisons, the noise floor (A/A) last."""
    for one in record.comparisons:
        yield Paired(f"ONNX Runtime against Torch, batch {one.batch_size}", one.comparison)
    if record.noise_floor is not None:
        yield Paired(f"{ENGINE_NAMES[record.noise_floor.baseline]} itself", record.noise_floor)


def snapshot(record: BenchRecord) -> DocumentTable:
    """Return the table that stands in `docs/PERFORMANCE.md`."""
    return document_table(row_columns(record), [row for row in record.rows if row.latency_ms])


def note_of(row: BenchRow) -> str | None:
    """Return the row's reason, unless its own interval already shows it."""
    wide = row.status == "inconclusive" and row.half_width_pct is not None
    return None if wide else row.reason


def _relative(row: BenchRow) -> str | None:
    found = row.relative
    return f"{found.ratio:.3f} ±{found.half_width_pct:.1f} %" if found else None


def _latency(row: BenchRow, name: str) -> float | None:
    return getattr(row.latency_ms, name, None)


def _bytes(count: int | None) -> str | None:
    return format_bytes(count) if count else None


def _with_interval(row: BenchRow) -> str:
    ends = row.latency_ms.ci95 if row.latency_ms else None
    interval = f"{format_ms(ends[0])}–{format_ms(ends[1])}" if ends else "no interval"
    doubt = "" if row.status == "measured" else f", {row.status}"
    return f"{format_ms(row.p50_ms)} ({interval}{doubt})"


def _change_interval(row: RowComparison) -> str | None:
    if row.latency_ratio_ci99 is None:
        return None
    return "{:+.1f} to {:+.1f} %".format(*(100 * (end - 1) for end in row.latency_ratio_ci99))
