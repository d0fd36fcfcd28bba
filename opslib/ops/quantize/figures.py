"""The figures of a quantization: the decision, and the images whose answers change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from opslib.inference.preprocess import to_pixels
from opslib.ops.quantize.columns import variant_title
from opslib.ops.quantize.finding import describe_speedup
from opslib.ops.quantize.record import Flip, QuantizeRecord, VariantRow
from opslib.telling.themes import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Small enough that a report with six photos in two themes can still be cited.
THUMBNAIL_PX = 112
SHOWN_COLOURS = 48
KIND_WORDS = {"lost": "now wrong", "gained": "now right", "other": "another answer"}


def draw_decision(record: QuantizeRecord, theme: Theme) -> Figure | None:
    """Draw speed against float32 and the accuracy drop with its 90 % interval, by variant; None
    where no variant was measured."""
    import matplotlib.pyplot as plt

    rows = [row for row in record.variants if row.accuracy is not None]
    if not rows:
        return None
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.8, 0.9 + 0.72 * len(rows)), sharey=True, width_ratios=(1.15, 1)
    )
    _draw_speed(left, record, rows, theme)
    _draw_drop(right, record, rows, theme)
    left.set_yticks(range(len(rows)), [variant_title(row) for row in rows])
    left.invert_yaxis()
    return figure


def describe_decision(record: QuantizeRecord) -> str:
    """Return what `draw_decision` shows, in words."""
    parts = []
    for row in record.variants:
        if row.accuracy is None:
            continue
        speeds = ", ".join(
            f"{describe_speedup(one)} at batch {size}" for size, one in row.speedups.items()
        )
        drop = row.accuracy.drop_pp
        lost = f"drop {drop:+.2f} points, " if drop is not None else ""
        speeds = speeds or "speed not measured"
        parts.append(f"{row.title}: {speeds}; {lost}at most {row.accuracy.drop_max_pp:.2f}")
    if not parts:
        return "No speed and no accuracy: no INT8 variant was measured."
    return "Speed against float32 and accuracy drop of each INT8 variant. " + ". ".join(parts) + "."


def draw_flips(flips: tuple[Flip, ...], folder: Path, theme: Theme) -> Figure | None:
    """Draw flipped images with the label and both predictions below each; None without one."""
    import matplotlib.pyplot as plt
    from PIL import Image

    if not flips:
        return None
    columns = min(3, len(flips))
    lines = -(-len(flips) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.95 * columns, 2.9 * lines), squeeze=False
    )
    colours = {"lost": theme.worse, "gained": theme.better, "other": theme.muted}
    for axes in grid.flat:
        axes.axis("off")
    for axes, flip in zip(grid.flat, flips, strict=False):
        path = folder / flip.image
        if path.is_file():
            with Image.open(path) as image:
                shown = Image.fromarray(to_pixels(image, THUMBNAIL_PX))
            shown.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            few = shown.quantize(SHOWN_COLOURS).convert("RGB")
            axes.imshow(few, interpolation="none")  # embedded as it is, not enlarged
        axes.set_title(KIND_WORDS[flip.kind], color=colours[flip.kind], fontsize=10, pad=4)
        text = f"float32  {flip.before} ({flip.before_confidence:.0%})\n"
        text += f"INT8  {flip.after} ({flip.after_confidence:.0%})"
        if flip.label:
            text = f"is  {flip.label}\n{text}"
        axes.text(0.5, -0.04, text, transform=axes.transAxes, ha="center", va="top", fontsize=8.5)
    return figure


def describe_flips(flips: tuple[Flip, ...]) -> str:
    """Return what `draw_flips` shows, in words."""
    parts = [
        f"{one.image}: float32 says {one.before}, INT8 says {one.after}, {KIND_WORDS[one.kind]}"
        for one in flips
    ]
    if not parts:
        return "No image is answered otherwise."
    return "Images answered otherwise. " + "; ".join(parts) + "."


def _draw_speed(axes: Axes, record: QuantizeRecord, rows: list[VariantRow], theme: Theme) -> None:
    import numpy as np

    height = 0.72 / max(1, len(record.batch_sizes))
    for index, size in enumerate(record.batch_sizes):
        known = {at: row.speedups[size] for at, row in enumerate(rows) if size in row.speedups}
        offsets = np.array(list(known), dtype=float)
        offsets += (index - (len(record.batch_sizes) - 1) / 2) * height
        look: dict[str, Any] = {"height": height * 0.9, "label": f"batch {size}"}
        look["color"] = theme.series[(0, 2, 4)[index % 3]]
        axes.barh(offsets, [value - 1 for value in known.values()], left=1.0, **look)
        for offset, value in zip(offsets, known.values(), strict=True):
            side, away = ("left", 4) if value >= 1 else ("right", -4)
            place: dict[str, Any] = {"xytext": (away, 0), "textcoords": "offset points"}
            text = f"{value:.2f} ×"
            axes.annotate(text, (value, offset), ha=side, va="center", fontsize=9, **place)
    axes.set_xscale("log")
    speedups = [speedup for row in rows for speedup in row.speedups.values()]
    lowest, highest = min([1.0, *speedups]), max([1.0, *speedups])
    if not speedups:
        where = axes.get_yaxis_transform()
        axes.text(1.05, 0.5, "not measured", transform=where, color=theme.muted)
    axes.set_xlim(min(0.5, lowest / 1.9), max(2.0, highest * 1.6))
    left, right = axes.get_xlim()
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8) if left <= t <= right]
    axes.set_xticks(ticks, [f"{t:g} ×" for t in ticks])
    axes.minorticks_off()
    axes.axvline(1.0, color=theme.muted, linewidth=1.2)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_title("Speed against float32", pad=18)
    axes.set_xlabel("slower   ·   faster")
    if record.batch_sizes:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=3)


def _draw_drop(axes: Axes, record: QuantizeRecord, rows: list[VariantRow], theme: Theme) -> None:
    colours = {"proven": theme.better, "disproven": theme.worse, "inconclusive": theme.neutral}
    for at, row in enumerate(rows):
        one = row.accuracy
        if one is None:
            continue
        low, high = one.drop_ci90_pp or (0.0, one.drop_max_pp)
        colour = colours[one.proof]
        axes.plot([low, high], [at, at], color=colour, linewidth=6, alpha=0.45)
        axes.plot([one.loss_pp], [at], marker="o", color=colour)
    axes.axvline(0.0, color=theme.muted, linewidth=1.2)
    axes.axvline(record.max_drop_pp, color=theme.worse, linestyle="--", linewidth=1.4)
    look: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 9, "color": theme.worse}
    text, where = f"allowed {record.max_drop_pp:g} ", axes.get_xaxis_transform()
    axes.text(record.max_drop_pp, 1.0, text, transform=where, **look)
    axes.margins(x=0.15)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_title("Accuracy drop", pad=18)
    axes.set_xlabel("points of top-1 lost, with 90 % interval")
