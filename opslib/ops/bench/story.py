"""A benchmark told to people: its tables, its figures and the values it publishes."""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.language import tr
from opslib.ops.bench.columns import PAIR_COLUMNS, list_pairs, note_of, row_columns
from opslib.ops.bench.record import ENGINE_NAMES, BenchRecord, BenchRow
from opslib.telling.columns import page_of, page_table
from opslib.telling.scraps import publish, publish_outcome
from opslib.telling.themes import Theme
from opslib.timing.blocks import Boundary

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from pandas import DataFrame

_Point = tuple[float | None, tuple[float, float] | None]
ENGINE_ORDER = ("onnx", "torch")
STAGES = ("decode", "transform", "inference")


def bench_frame(record: BenchRecord, boundary: Boundary) -> DataFrame:
    """Return the rows of one boundary as a table: latency in ms, throughput in img/s."""
    rows = [row for row in record.rows if row.boundary == boundary]
    return page_table(row_columns(record), rows)


comparison_frame = page_of(PAIR_COLUMNS, list_pairs)


def list_notes(record: BenchRecord) -> list[str]:
    """Return what a reader must know beside the figures: provider notes, parity, skipped images,
    what disturbed the measurement."""
    lines = list(dict.fromkeys(filter(None, map(note_of, record.rows))))
    if record.parity is None:
        lines.append("Parity was not checked: one engine was measured.")
    elif record.parity.passed:
        lines.append(
            f"Parity passed: {record.parity.reason}; mean squared error of the probabilities "
            f"{record.parity.mse_mean:.1e} (at most {record.parity.mse_mean_max:g})."
        )
    if record.reference_sha256 is not None:
        lines.append(
            "× reference is the latency as a multiple of a frozen network's, timed in turn with "
            "it: that holds from one day to the next. Milliseconds are this host's, then."
        )
    lines += record.inputs.notes()
    watched = record.disturbance
    if watched.load_average is not None:
        lines.append(f"Load average at the end {watched.load_average:.1f}.")
    if watched.foreign_gpu_processes:
        lines.append(f"Other processes on the card: {', '.join(watched.foreign_gpu_processes)}.")
    return lines


def draw_against_batch(record: BenchRecord, theme: Theme) -> Figure | None:
    """Draw latency and throughput of inference against batch size, and below them the latency as a
    multiple of the reference network's, with 95 % intervals; None where no engine was timed."""
    import matplotlib.pyplot as plt

    if not _engines(record):
        return None
    related = any(row.relative for row in record.rows)
    layout = "AB;CC" if related else "AB"
    figure, axes_of = plt.subplot_mosaic(layout, figsize=(8.8, 6.8 if related else 3.4))
    panels = dict(zip(("ms", "img/s", "ratio"), axes_of.values(), strict=False))
    for engine, colour in zip(_engines(record), theme.series, strict=False):
        rows = _timed(record, engine, "inference")
        label = f"{ENGINE_NAMES[engine]} ({rows[0].provider})"
        shown: dict[str, list[_Point]] = {
            "ms": [(row.p50_ms, row.latency_ms.ci95 if row.latency_ms else None) for row in rows],
            "img/s": [(row.throughput_img_s, row.throughput_ci95_img_s) for row in rows],
            "ratio": [
                (row.relative.ratio, row.relative.ci95) if row.relative else (None, None)
                for row in rows
            ],
        }
        sizes = [row.batch_size for row in rows]
        for name, axes in panels.items():
            points = shown[name]
            values = [math.nan if value is None else value for value, _ in points]
            axes.plot(sizes, values, marker="o", color=colour, label=label)
            known = [(size, *ends) for size, (_, ends) in zip(sizes, points, strict=True) if ends]
            if known:
                across, low, high = zip(*known, strict=True)
                axes.fill_between(across, low, high, color=colour, alpha=0.22, linewidth=0)
    titles = {
        "ms": ("Latency of a batch, median", "ms"),
        "img/s": ("Throughput", "images per second"),
        "ratio": ("Latency against the reference network", "×"),
    }
    for name, axes in panels.items():
        sizes = sorted({row.batch_size for row in record.rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size")
        axes.set_title(titles[name][0])
        axes.set_ylabel(titles[name][1])
        axes.legend()
    panels["ms"].set_yscale("log")
    panels["img/s"].set_ylim(bottom=0)
    return figure


def describe_against_batch(record: BenchRecord) -> str:
    """Return what `draw_against_batch` shows, in words."""
    parts = []
    for engine in _engines(record):
        rows = _timed(record, engine, "inference")
        values = "; ".join(
            f"batch {row.batch_size}: {row.p50_ms:.2f} ms, "
            f"{row.throughput_img_s or 0:,.0f} images per second"
            + (f", {row.relative.ratio:.2f} × the reference network" if row.relative else "")
            for row in rows
        )
        parts.append(f"{ENGINE_NAMES[engine]} on {rows[0].provider}: {values}")
    if not parts:
        return "No latency and no throughput: no engine was timed."
    return "Latency and throughput against batch size. " + ". ".join(parts) + "."


def draw_stages(record: BenchRecord, theme: Theme) -> Figure | None:
    """Draw where an image's time goes end to end: decode, transform, inference, in ms; None where
    no stages were measured."""
    import matplotlib.pyplot as plt

    staged = {engine: rows for engine in ENGINE_ORDER if (rows := _staged(record, engine))}
    if not staged:
        return None
    figure, grid = plt.subplots(1, len(staged), figsize=(8.8, 3.4), sharey=True, squeeze=False)
    for axes, (engine, rows) in zip(grid[0], staged.items(), strict=True):
        positions = range(len(rows))
        bottom = [0.0] * len(rows)
        # Foreign code cannot be split.
        split = all(row.stages_ms and row.stages_ms.decode is not None for row in rows)
        for index, label in enumerate(STAGES if split else ("preprocess", "inference")):
            values = [getattr(row.stages_ms, label) / row.batch_size for row in rows]
            colour = theme.series[(0, 4, 2)[index % 3]]
            axes.bar(positions, values, bottom=bottom, color=colour, label=label, width=0.72)
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axes.set_xticks(list(positions), [str(row.batch_size) for row in rows])
        axes.set_xlabel("batch size")
        axes.set_title(ENGINE_NAMES[engine])
    grid[0][0].set_ylabel("ms per image")
    parts: dict[str, Artist] = {}
    for axes in grid[0]:
        handles, labels = axes.get_legend_handles_labels()
        parts |= dict(zip(labels, handles, strict=True))
    # Beside the bars: with one batch size the bar is as wide as the panel.
    figure.legend(parts.values(), parts, loc="outside lower center", ncols=len(parts))
    return figure


def describe_stages(record: BenchRecord) -> str:
    """Return what `draw_stages` shows, in words."""
    parts = []
    for row in (row for engine in ENGINE_ORDER for row in _staged(record, engine)):
        before, after = attrgetter("preprocess", "inference")(row.stages_ms)
        whole = before + after
        share = 100 * before / whole if whole else 0.0
        parts.append(
            f"{ENGINE_NAMES[row.engine]} at batch {row.batch_size}: {share:.0f} % of "
            f"{whole / row.batch_size:.2f} ms per image is decoding and transforming"
        )
    if not parts:
        return "No stages were measured: where the time of an image goes is not known."
    return "Where the time of an image goes, end to end. " + "; ".join(parts) + "."


def publish_bench(record: BenchRecord, path: Path) -> None:
    """Publish the verdict and the key figures of a benchmark as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    for engine in _engines(record):
        rows, name = _timed(record, engine, "inference"), ENGINE_NAMES[engine]
        best = max(rows, key=lambda row: row.throughput_img_s or 0.0)
        publish(
            f"{engine}_p50_ms",
            round(rows[0].p50_ms or 0.0, 4),
            unit="ms",
            better="lower",
            label=tr("{engine}, batch {size}, median", engine=name, size=rows[0].batch_size),
            interval=rows[0].latency_ms.ci95 if rows[0].latency_ms else None,
        )
        if rows[0].relative is not None:
            publish(
                f"{engine}_relative",
                round(rows[0].relative.ratio, 4),
                unit="×",
                better="lower",
                label=tr(
                    "{engine}, batch {size}, against the reference network",
                    engine=name,
                    size=rows[0].batch_size,
                ),
                interval=rows[0].relative.ci95,
            )
        publish(
            f"{engine}_throughput_img_s",
            round(best.throughput_img_s or 0.0, 1),
            unit="img/s",
            better="higher",
            label=tr("{engine}, best throughput (batch {size})", engine=name, size=best.batch_size),
            interval=best.throughput_ci95_img_s,
        )
    if record.noise_floor is not None:
        value = round(record.noise_floor.half_width_pct, 2)
        publish("noise_floor_pct", value, unit="%", label=tr("Noise floor (A/A)"))


def _engines(record: BenchRecord) -> list[str]:
    return [name for name in ENGINE_ORDER if _timed(record, name, "inference")]


def _staged(record: BenchRecord, engine: str) -> list[BenchRow]:
    return [row for row in _timed(record, engine, "end_to_end") if row.stages_ms]


def _timed(record: BenchRecord, engine: str, boundary: Boundary) -> list[BenchRow]:
    rows = [row for row in record.rows if (row.engine, row.boundary) == (engine, boundary)]
    return sorted(filter(attrgetter("latency_ms"), rows), key=attrgetter("batch_size"))
