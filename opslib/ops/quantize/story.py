"""A quantization told to people: its tables, its figures, the flipped images, what it publishes."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.config import Config
from opslib.core.language import tr
from opslib.ops.quantize import columns
from opslib.ops.quantize.figures import describe_flips, draw_flips
from opslib.ops.quantize.finding import describe_prepared, round_up
from opslib.ops.quantize.record import QuantizeRecord, VariantRow
from opslib.telling.columns import page_of, page_table
from opslib.telling.figures import show_figure, show_text
from opslib.telling.scraps import publish, publish_outcome
from opslib.timing.tango import PairedCounts, drop_interval, fewest_images, images_to_settle

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_SHOWN_FLIPS = 6
decision_frame = page_of(columns.decision_columns, attrgetter("rows"))
accuracy_frame = page_of(columns.ACCURACY_COLUMNS, attrgetter("variants"))
speed_frame = page_of(columns.SPEED_COLUMNS, columns.list_timed)
build_frame = page_of(columns.build_columns, attrgetter("rows"))
batch_frame = page_of(
    columns.BATCH_COLUMNS,
    lambda record: [row for row in record.variants if row.batch_dependence],
)


def flips_frame(record: QuantizeRecord, name: str | None = None) -> DataFrame:
    """Return a variant's changed answers by class (the recommended one's by default)."""
    return page_table(columns.FLIP_COLUMNS, shown_variant(record, name).by_class)


def shown_variant(record: QuantizeRecord, name: str | None = None) -> VariantRow:
    """Return the variant whose flips are shown: the recommended one, else the gated one."""
    if name is not None:
        return record.row(name)
    row = record.row(record.recommended)
    return record.gated_row if row is record.baseline else row


def list_notes(record: QuantizeRecord) -> list[str]:
    """Return what a reader must know beside the figures, most important first."""
    host = record.lineage.host
    fast = [flag for flag in host.isa if "vnni" in flag or "amx" in flag]
    lines = [_gate_note(record), _proof_note(record)]
    lines.append(
        f"Speed was measured on the CPU ({host.label}; "
        f"{'INT8 instructions: ' + ', '.join(fast) if fast else 'no INT8 instructions'}). "
        "ONNX Runtime has no CUDA kernels for these INT8 operators, so on a card the float32 model "
        "stays."
    )
    if record.calibration is not None:
        lines.append(
            f"Static variants were calibrated on {record.calibration.count:,} training images, "
            "none of them among the validation images."
        )
        lines += record.calibration.notes("Calibration images")
    if record.prepared:
        lines.append(describe_prepared(record.prepared))
    lines += [f"{row.title}: {row.reason}" for row in record.variants if row.reason]
    lines += [f"{row.title}: {row.divergence.finding}" for row in record.variants if row.divergence]
    notes: dict[str, list[str]] = {}
    for row in record.variants:
        for note in row.notes:
            notes.setdefault(note, []).append(row.title)
    lines += [f"{' and '.join(titles)}: {note}" for note, titles in notes.items()]
    lines += record.inputs.notes()
    return lines


def _gate_note(record: QuantizeRecord) -> str:
    decides = (
        "the drop seen on these images"
        if record.accuracy_gate == "rule"
        else "what is proven of the drop"
    )
    return (
        f"The badge is the accuracy gate of the required variant, {record.gated_row.title}: "
        f"at most {record.max_drop_pp:g} points of top-1 may be lost, and {decides} decides. "
        "Speed is judged apart."
    )


def _proof_note(record: QuantizeRecord) -> str:
    limit = record.max_drop_pp / 100
    if not record.labelled:
        return (
            f"The images have no labels ({record.label_note}). The share of changed answers bounds "
            "the drop from above; it can prove that the drop is small, never that it is large."
        )
    least = fewest_images(limit)
    usual = images_to_settle(PairedCounts(1000, 5, 5), limit) or least
    return (
        f"A drop within {record.max_drop_pp:g} points can be proven from {least:,} images on, if "
        f"no answer changes; with 1 % of answers changing it takes about {round_up(usual):,}. "
        f"128 images can show a collapse, but prove no better than "
        f"{100 * drop_interval(PairedCounts(128, 0, 0)).high:.1f} points."
    )


def show_flips(record: QuantizeRecord, config: Config, name: str | None = None) -> None:
    """Show the images that a variant answers otherwise, with both predictions."""
    row = shown_variant(record, name)
    shown = row.flips[:MAX_SHOWN_FLIPS]
    if not shown:
        show_text(f"{row.title} answers every image as float32 does.")
        return
    folder = config.resolve(record.inputs.folder or record.inputs.glob.split("*", 1)[0])
    more = len(row.flips) - len(shown)
    show_figure(
        lambda theme: draw_flips(shown, folder, theme),
        alt=describe_flips(shown),
        caption=f"{row.title}: {len(row.flips)} of {record.inputs.count:,} answers differ from "
        f"float32{f', {more} more not shown' if more else ''}",
    )


def publish_quantize(record: QuantizeRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a quantization as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    best = record.row(record.recommended)
    publish("recommended", best.title, label=tr("Deploy"))
    shown = [best] if best is not record.baseline and best is not record.gated_row else []
    for row in (*shown, record.gated_row):
        key = row.name.replace("-", "_")
        for speed in row.speed:
            if speed.comparison is not None:
                publish(
                    f"{key}_speedup_b{speed.batch_size}",
                    round(speed.comparison.speedup, 2),
                    unit="×",
                    better="higher",
                    label=tr(
                        "{title}, speed at batch {size}", title=row.title, size=speed.batch_size
                    ),
                    interval=speed.comparison.speedup_ci95,
                )
        if row.accuracy is not None and row.accuracy.drop_pp is not None:
            drop, label = round(row.accuracy.drop_pp, 3), tr("{title}, top-1 lost", title=row.title)
            publish(f"{key}_drop_pp", drop, unit="points", better="lower", label=label)
        if row.size_bytes and record.baseline.size_bytes:
            share = round(100 * row.size_bytes / record.baseline.size_bytes, 1)
            label = tr("{title}, size against float32", title=row.title)
            publish(f"{key}_size_pct", share, unit="%", better="lower", label=label)
