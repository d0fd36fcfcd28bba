"""A quantization told to people: its tables, its figures, the flipped images, what it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.config import Config
from opslib.core.formatting import format_bytes, format_ms
from opslib.ops.quantize.figures import (
    describe_decision,
    describe_flips,
    draw_decision,
    draw_flips,
    variant_title,
)
from opslib.ops.quantize.finding import (
    describe_prepared,
    describe_proof,
    describe_speedup,
    round_up,
)
from opslib.ops.quantize.record import QuantizeRecord, VariantRow, VariantSpeed
from opslib.telling.scraps import publish, publish_outcome
from opslib.timing.tango import PairedCounts, drop_interval, fewest_images, images_to_settle

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["describe_decision", "draw_decision"]

MAX_SHOWN_FLIPS = 6
SPEED_WORDS = {"faster": "faster", "slower": "slower", "unclear": "no clear difference"}


def decision_frame(record: QuantizeRecord) -> DataFrame:
    """Return the whole decision as one table: accuracy, speed, size and advice by variant."""
    import pandas as pd

    return pd.DataFrame([_decision_row(record, row) for row in record.rows])


def accuracy_frame(record: QuantizeRecord) -> DataFrame:
    """Return accuracy by variant: raw counts, drop in points with its interval, both answers."""
    import pandas as pd

    return pd.DataFrame([_accuracy_row(row) for row in record.variants])


def speed_frame(record: QuantizeRecord) -> DataFrame:
    """Return latency in ms, throughput in img/s and speed-up by variant and batch size."""
    import pandas as pd

    return pd.DataFrame(
        [
            _speed_row(row, one)
            for size in record.batch_sizes
            for row in record.rows
            for one in row.speed
            if one.batch_size == size
        ]
    )


def build_frame(record: QuantizeRecord) -> DataFrame:
    """Return what each variant is made of: size and the operators that decide its speed."""
    import pandas as pd

    base = record.baseline.size_bytes or 0
    rows = []
    for row in record.rows:
        ops = row.ops
        integer = sum(n for name, n in ops.items() if name.endswith("Integer"))
        rows.append(
            {
                "variant": variant_title(row),
                "size": format_bytes(row.size_bytes) if row.size_bytes else None,
                "of float32": f"{100 * row.size_bytes / base:.0f} %"
                if row.size_bytes and base
                else None,
                "Conv": ops.get("Conv", 0) if ops else None,
                "ConvInteger, MatMulInteger": integer if ops else None,
                "QLinear": sum(n for k, n in ops.items() if k.startswith("QLinear"))
                if ops
                else None,
                "Q/DQ": ops.get("QuantizeLinear", 0) + ops.get("DequantizeLinear", 0)
                if ops
                else None,
            }
        )
    return pd.DataFrame(rows)


def batch_frame(record: QuantizeRecord) -> DataFrame:
    """Return whether an image's answer depends on who shares its batch, by variant."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "variant": variant_title(row),
                "images": one.n,
                "alone against a batch of": one.batch_size,
                "other class": one.changed,
                "largest change of a probability": f"{one.max_abs_diff:.4f}",
            }
            for row in record.variants
            if (one := row.batch_dependence) is not None
        ]
    )


def flips_frame(record: QuantizeRecord, name: str | None = None) -> DataFrame:
    """Return a variant's changed answers by class (the recommended one's by default)."""
    import pandas as pd

    row = shown_variant(record, name)
    return pd.DataFrame(
        [
            {
                "class": one.name,
                "images": one.count,
                "now wrong": one.lost,
                "now right": one.gained,
                "another answer": one.other,
            }
            for one in row.by_class
        ],
        columns=["class", "images", "now wrong", "now right", "another answer"],
    )


def shown_variant(record: QuantizeRecord, name: str | None = None) -> VariantRow:
    """Return the variant whose flips are shown: the recommended one, else the gated one."""
    if name is not None:
        return record.row(name)
    row = record.row(record.recommended)
    return record.gated_row if row is record.baseline else row


def signed(value: float) -> str:
    """Return a number with its sign and two places, as typography wants it."""
    return f"{value:+.2f}".replace("-", "−")


def signed_interval(value: float, low: float, high: float) -> str:
    """Return a number with its interval."""
    return f"{signed(value)} ({signed(low)} to {signed(high)})"


def show_notes(record: QuantizeRecord) -> None:
    """Show `list_notes` as a list."""
    from html import escape

    from IPython.display import display

    lines = list_notes(record)
    html = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
    display({"text/html": html, "text/plain": "\n".join(lines)}, raw=True)  # type: ignore[no-untyped-call]


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
    from opslib.telling.figures import show_figure

    row = shown_variant(record, name)
    shown = row.flips[:MAX_SHOWN_FLIPS]
    if not shown:
        from IPython.display import Markdown, display

        display(Markdown(f"**{row.title}** answers every image as float32 does."))  # type: ignore[no-untyped-call]
        return
    folder = Path(record.inputs.folder or record.inputs.glob.split("*", 1)[0])
    folder = folder if folder.is_absolute() else config.resolve(folder)
    more = len(row.flips) - len(shown)
    rest = f", {more} more not shown" if more else ""
    show_figure(
        lambda theme: draw_flips(shown, folder, theme),
        alt=describe_flips(shown),
        caption=f"{row.title}: {len(row.flips)} of {record.inputs.count:,} answers differ from "
        f"float32{rest}",
    )


def publish_quantize(record: QuantizeRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a quantization as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    best = record.row(record.recommended)
    publish("recommended", best.title, label="Deploy")
    shown = [best] if best is not record.baseline and best is not record.gated_row else []
    for row in (*shown, record.gated_row):
        _publish_row(row, record.baseline)


def _publish_row(row: VariantRow, baseline: VariantRow) -> None:
    key = row.name.replace("-", "_")
    for one in row.speed:
        if one.comparison is not None:
            publish(
                f"{key}_speedup_b{one.batch_size}",
                round(one.comparison.speedup, 2),
                unit="×",
                better="higher",
                label=f"{row.title}, speed at batch {one.batch_size}",
            )
    if row.accuracy is not None and row.accuracy.drop_pp is not None:
        publish(
            f"{key}_drop_pp",
            round(row.accuracy.drop_pp, 3),
            unit="points",
            better="lower",
            label=f"{row.title}, top-1 lost",
        )
    if row.size_bytes and baseline.size_bytes:
        publish(
            f"{key}_size_pct",
            round(100 * row.size_bytes / baseline.size_bytes, 1),
            unit="%",
            better="lower",
            label=f"{row.title}, size against float32",
        )


def snapshot_table(record: QuantizeRecord) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of text that stand in `docs/PERFORMANCE.md`."""
    columns = ["Variant", "Size", "Top-1 drop, points (90 % interval)", "Rule", "Proof"]
    columns += [f"Speed-up, batch {size} (95 % interval)" for size in record.batch_sizes]
    columns += [f"img/s, batch {size}" for size in record.batch_sizes[-1:]]
    rows = []
    for row in record.rows:
        one = row.accuracy
        interval = one.drop_ci90_pp if one else None
        drop = "–"
        if one is not None:
            drop = (
                signed_interval(one.drop_pp, *interval)
                if one.drop_pp is not None and interval
                else f"at most {one.drop_max_pp:.2f}"
            )
        cells = [
            variant_title(row),
            format_bytes(row.size_bytes) if row.size_bytes else "–",
            drop,
            one.rule if one else "–",
            one.proof if one else row.reason or "–",
        ]
        for size in record.batch_sizes:
            speed = next((s for s in row.speed if s.batch_size == size), None)
            cells.append(_speedup_text(speed))
        last = row.speed[-1].row if row.speed else None
        if record.batch_sizes:
            cells.append(f"{last.throughput_img_s:,.0f}" if last and last.throughput_img_s else "–")
        rows.append(cells)
    return columns, rows


def _decision_row(record: QuantizeRecord, row: VariantRow) -> dict[str, object]:
    one = row.accuracy
    cells: dict[str, object] = {"model": variant_title(row)}
    for size in record.batch_sizes:
        speedup = row.speedup(size)
        cells[f"speed, batch {size}"] = describe_speedup(speedup) if speedup else None
    if row is record.baseline:
        top1 = next((r.accuracy.baseline_top1_pct for r in record.variants if r.accuracy), None)
        cells |= {"top-1": f"{top1:.2f} %" if top1 is not None else None, "lost": None}
        cells["proven?"] = None
    elif one is None:
        cells |= {"top-1": None, "lost": row.reason, "proven?": None}
    else:
        cells["top-1"] = f"{one.top1_pct:.2f} %" if one.top1_pct is not None else None
        cells["lost"] = f"{signed(one.drop_pp)} points" if one.drop_pp is not None else None
        cells["proven?"] = describe_proof(one).removeprefix("proven: ")
    cells["size"] = format_bytes(row.size_bytes) if row.size_bytes else None
    cells["advice"] = _advice(record, row)
    return cells


def _advice(record: QuantizeRecord, row: VariantRow) -> str:
    if row.name == record.recommended:
        return "deploy"
    if row is record.baseline:
        return "the reference"
    if row.status == "unavailable":
        return "unavailable"
    if row.verdict != "pass":
        return "not accurate enough" if row.verdict == "fail" else "undecided"
    speeds = [one.speed for one in row.speed]
    if "slower" in speeds:
        return "slower: do not deploy"
    return "also good" if "faster" in speeds else "no gain"


def _accuracy_row(row: VariantRow) -> dict[str, object]:
    one = row.accuracy
    cells: dict[str, object] = {"variant": variant_title(row)}
    if one is None:
        return cells | {"proof": row.reason}
    if one.drop_pp is not None and one.drop_ci90_pp is not None:
        low, high = one.drop_ci90_pp
        cells |= {
            "top-1": f"{one.top1_pct:.2f} %" if one.top1_pct is not None else None,
            "lost": one.lost,
            "gained": one.gained,
            "points lost (90 % interval)": signed_interval(one.drop_pp, low, high),
            "p": f"{one.mcnemar_p:.2g}" if one.mcnemar_p is not None else None,
        }
    else:
        cells["drop at most"] = f"{one.drop_max_pp:.2f} points"
    return cells | {"flips": one.flipped, "rule": one.rule, "proof": one.proof}


def _speed_row(row: VariantRow, one: VariantSpeed) -> dict[str, object]:
    latency = one.row.latency_ms if one.row else None
    pair = one.comparison
    return {
        "batch": one.batch_size,
        "variant": variant_title(row),
        "p50 ms": format_ms(latency.p50) if latency else None,
        "± %": round(one.row.half_width_pct, 1) if one.row and one.row.half_width_pct else None,
        "img/s": round(one.row.throughput_img_s) if one.row and one.row.throughput_img_s else None,
        "speed-up": f"{pair.speedup:.2f} ×" if pair else None,
        "95 % interval": f"{pair.speedup_ci95[0]:.2f} to {pair.speedup_ci95[1]:.2f}"
        if pair
        else None,
        "verdict": SPEED_WORDS[one.speed] if pair else "the reference",
    }


def _speedup_text(speed: VariantSpeed | None) -> str:
    if speed is None or speed.comparison is None:
        return "–"
    low, high = speed.comparison.speedup_ci95
    doubt = ", unclear" if speed.speed == "unclear" else ""
    return f"{speed.comparison.speedup:.2f} × ({low:.2f} to {high:.2f}{doubt})"
