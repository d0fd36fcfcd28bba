"""The columns of a quantization: its decision, accuracy, speed, make and changed answers."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import NamedTuple

from opslib.core.formatting import format_bytes, format_ms
from opslib.ops.quantize.finding import describe_proof, describe_speedup
from opslib.ops.quantize.record import (
    Accuracy,
    ClassFlips,
    QuantizeRecord,
    VariantRow,
    VariantSpeed,
)
from opslib.telling.columns import DOCUMENT, PAGE, TERMINAL, Column, DocumentTable, document_table

SPEED_WORDS = {"faster": "faster", "slower": "slower", "unclear": "no clear difference"}
_PRINTED = TERMINAL | DOCUMENT


class Timed(NamedTuple):
    """A variant and its speed at one batch size."""

    row: VariantRow
    speed: VariantSpeed


def variant_title(row: VariantRow) -> str:
    """Return the row's title, the required variant marked."""
    return f"{row.title} (required)" if row.gated else row.title


def decision_columns(record: QuantizeRecord) -> list[Column[VariantRow]]:
    """Return the columns of the decision: accuracy, speed, size and advice of each variant."""
    sizes = record.batch_sizes

    def top1(row: VariantRow) -> str | None:
        if row is record.baseline:
            return _percent(record.baseline_top1_pct)
        return _percent(row.accuracy.top1_pct if row.accuracy else None)

    def lost(row: VariantRow) -> str | None:
        drop = row.accuracy.drop_pp if row.accuracy else None
        return row.reason if drop is None else f"{signed(drop)} points"

    return [
        Column("model", lambda _: record.model.name, where=DOCUMENT),
        Column("variant", variant_title),
        *(Column(f"speed, batch {one}", _in_words(one), where=PAGE) for one in sizes),
        Column("top-1", top1, where=PAGE),
        Column("lost", lost, where=PAGE),
        Column(
            "proven?",
            _accuracy(describe_proof),
            where=PAGE,
        ),
        Column("size", _size, right=True),
        Column("points lost (90 %)", _accuracy(_drop), right=True, where=_PRINTED),
        Column("rule", _accuracy(lambda one: one.rule), where=_PRINTED),
        Column("proof", _accuracy(lambda one: one.proof), where=TERMINAL),
        Column("proof", lambda row: _proof(row) or row.reason, where=DOCUMENT),
        *(Column(f"batch {one}, ms", _latency(one), right=True, where=TERMINAL) for one in sizes),
        *(Column(f"speed-up, batch {one} (95 %)", _speedup(one), where=DOCUMENT) for one in sizes),
        *(
            Column(f"img/s, batch {one}", _throughput(one), "{:,.0f}".format, where=DOCUMENT)
            for one in sizes[-1:]
        ),
        Column("advice", lambda row: _advise(record, row), where=PAGE),
    ]


def _accuracy(get: Callable[[Accuracy], object]) -> Callable[[VariantRow], object]:
    """Return a column's getter of a row's accuracy, None where it was not measured."""
    return lambda row: None if row.accuracy is None else get(row.accuracy)


def _drop(one: Accuracy) -> str:
    if one.drop_pp is None or one.drop_ci90_pp is None:
        return f"at most {one.drop_max_pp:.2f}"
    return "{} ({} to {})".format(*map(signed, (one.drop_pp, *one.drop_ci90_pp)))


_proof = _accuracy(lambda one: one.proof)
ACCURACY_COLUMNS: tuple[Column[VariantRow], ...] = (
    Column("variant", variant_title),
    Column("top-1", _accuracy(lambda one: _percent(one.top1_pct))),
    Column("lost", _accuracy(lambda one: one.lost)),
    Column("gained", _accuracy(lambda one: one.gained)),
    Column("points lost (90 % interval)", _accuracy(_drop)),
    Column("p", _accuracy(lambda one: one.mcnemar_p), "{:.2g}".format),
    Column("flips", _accuracy(lambda one: one.flipped)),
    Column("rule", _accuracy(lambda one: one.rule)),
    Column("proof", lambda row: _proof(row) or row.reason),
)
SPEED_COLUMNS: tuple[Column[Timed], ...] = (
    Column("batch", lambda one: one.speed.batch_size),
    Column("variant", lambda one: variant_title(one.row)),
    Column("p50 ms", lambda one: one.speed.row and one.speed.row.p50_ms),
    Column("± %", lambda one: one.speed.row and one.speed.row.half_width_pct),
    Column("img/s", lambda one: one.speed.row and one.speed.row.throughput_img_s),
    Column("speed-up (95 % interval)", lambda one: describe_interval(one.speed)),
    Column(
        "verdict",
        lambda one: SPEED_WORDS[one.speed.speed] if one.speed.comparison else "the reference",
    ),
)
# Whether an answer depends on who shares its batch, for rows where that was looked at.
BATCH_COLUMNS: tuple[Column[VariantRow], ...] = (
    Column("variant", variant_title),
    Column("images", attrgetter("batch_dependence.n")),
    Column("alone against a batch of", attrgetter("batch_dependence.batch_size")),
    Column("other class", attrgetter("batch_dependence.changed")),
    Column("largest change of a probability", attrgetter("batch_dependence.max_abs_diff")),
)
FLIP_COLUMNS: tuple[Column[ClassFlips], ...] = (
    Column("class", lambda one: one.name),
    Column("images", lambda one: one.count),
    Column("now wrong", lambda one: one.lost),
    Column("now right", lambda one: one.gained),
    Column("another answer", lambda one: one.other),
)


def build_columns(record: QuantizeRecord) -> list[Column[VariantRow]]:
    """Return the columns of a variant's make: size, and the operators that decide its speed."""
    base = record.baseline.size_bytes

    def share(row: VariantRow) -> str | None:
        return f"{100 * row.size_bytes / base:.0f} %" if row.size_bytes and base else None

    def count(matches: Callable[[str], bool]) -> Callable[[VariantRow], int | None]:
        return lambda row: (
            sum(n for name, n in row.ops.items() if matches(name)) if row.ops else None
        )

    return [
        Column("variant", variant_title),
        Column("size", _size),
        Column("of float32", share),
        Column("Conv", count(lambda name: name == "Conv")),
        Column("ConvInteger, MatMulInteger", count(lambda name: name.endswith("Integer"))),
        Column("QLinear", count(lambda name: name.startswith("QLinear"))),
        Column("Q/DQ", count(lambda name: name in ("QuantizeLinear", "DequantizeLinear"))),
    ]


def list_timed(record: QuantizeRecord) -> Iterator[Timed]:
    """Yield the variants with their speeds, by batch size."""
    for size in record.batch_sizes:
        for row in record.rows:
            speed = row.speed_at(size)
            if speed is not None:
                yield Timed(row, speed)


def snapshot(record: QuantizeRecord) -> DocumentTable:
    """Return the table that stands in `docs/PERFORMANCE.md`."""
    return document_table(decision_columns(record), record.rows)


def signed(value: float) -> str:
    """Return a number with its sign and two places, as typography wants it."""
    return f"{value:+.2f}".replace("-", "−")


def describe_interval(speed: VariantSpeed) -> str | None:
    """Return a speed-up with its 95 % interval and whether it is in doubt."""
    if speed.comparison is None:
        return None
    low, high = speed.comparison.speedup_ci95
    doubt = ", unclear" if speed.speed == "unclear" else ""
    return f"{speed.comparison.speedup:.2f} × ({low:.2f} to {high:.2f}{doubt})"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2f} %"


def _size(row: VariantRow) -> str | None:
    return format_bytes(row.size_bytes) if row.size_bytes else None


def _describe_latency(one: VariantSpeed) -> str | None:
    """Median latency, how many times as fast, and a question mark where that is in doubt."""
    if one.row is None or one.row.p50_ms is None:
        return None
    doubt = "?" if one.speed == "unclear" else ""
    times = f" {one.comparison.speedup:.2f}{doubt} ×" if one.comparison else ""
    return f"{format_ms(one.row.p50_ms)}{times}"


def _speed(
    get: Callable[[VariantSpeed], object],
) -> Callable[[int], Callable[[VariantRow], object]]:
    """Return, by batch size, a column's getter of a row's speed, None where it was not timed."""

    def at_batch(size: int) -> Callable[[VariantRow], object]:
        return lambda row: None if (one := row.speed_at(size)) is None else get(one)

    return at_batch


_in_words = _speed(lambda one: one.comparison and describe_speedup(one.comparison.speedup))
_latency = _speed(_describe_latency)
_speedup = _speed(describe_interval)
_throughput = _speed(lambda one: one.row and one.row.throughput_img_s)


def _advise(record: QuantizeRecord, row: VariantRow) -> str:
    if row.name == record.recommended:
        return "deploy"
    if row is record.baseline:
        return "the reference"
    if row.status == "unavailable":
        return "unavailable"
    if row.verdict != "pass":
        return "not accurate enough" if row.verdict == "fail" else "undecided"
    words = {"slower": "slower: do not deploy", "faster": "also good", "unclear": "no gain"}
    return words[row.pace]
