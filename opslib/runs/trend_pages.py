"""The pages of the trends: one for each figure, and `trends/index.html` that lists them."""

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from opslib.core.errors import storage_errors
from opslib.core.files import write_text_atomic
from opslib.core.language import ENGLISH, Language, language_in_force
from opslib.core.records import Part
from opslib.runs.catalogue import RunRow
from opslib.runs.html import render_page
from opslib.runs.trends import Trend, describe_change, explain_step, list_trends
from opslib.telling.figures import format_number, short_number
from opslib.timing.steps import FEWEST_RUNS

TRENDS_FOLDER = "trends"
CACHE_FILE = ".pages.json"
WIDTH, HEIGHT = 760, 280
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 14, 30
SPARK_RUNS = 40
MOST_ROWS = 200  # of the table: the newest runs
MOST_MARKS = 120  # runs whose points and intervals are drawn one by one
_PAGE = re.compile(r"[a-z0-9-]*-[0-9a-f]{8}\.html")


class TrendSummary(Part):
    """What the lists show of a trend: its page, its line in small, its last value and step.

    `newest` is the id of its newest run.
    """

    page: str
    digest: str
    newest: str
    notebook: str
    label: str
    host: str
    unit: str
    runs: int
    last: str
    spark: str
    step: str | None = None
    step_day: str | None = None
    step_better: bool = False
    can_tell: bool = True


class _Cache(Part):
    version: Literal[1] = 1  # raised with whatever the pages show
    language: Language = ENGLISH
    trends: dict[str, TrendSummary] = {}


def build_trends(root: Path, rows: Sequence[RunRow]) -> list[TrendSummary]:
    """Write the pages of all trends below `root/trends` and return what lists show of them.

    A page is written again where a run was added, removed or changed, or it is in another language;
    a page whose runs are gone is removed.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = root / TRENDS_FOLDER
    kept = _read_cache(folder)
    summaries: dict[str, TrendSummary] = {}
    with storage_errors(f"write {folder}"):
        for trend in list_trends(rows):
            if len(trend.runs) < 2:
                continue
            known = kept.get(trend.page)
            if known is None or known.digest != trend.digest or not (folder / known.page).exists():
                write_text_atomic(folder / trend.page, render_trend(root, trend))
                known = summarize(trend)
            summaries[trend.page] = known
        for path in folder.glob("*.html"):
            if _PAGE.fullmatch(path.name) and path.name not in summaries:
                path.unlink(missing_ok=True)
        if summaries != kept or (summaries and not (folder / "index.html").exists()):
            page = render_page("trends.html.j2", trends=list(summaries.values()))
            write_text_atomic(folder / "index.html", page)
            text = _Cache(language=language_in_force(), trends=summaries).model_dump_json()
            write_text_atomic(folder / CACHE_FILE, text)
    return list(summaries.values())


def summarize(trend: Trend) -> TrendSummary:
    """Return what the lists show of a trend."""
    last = trend.steps[-1] if trend.steps else None
    recent = trend.values[-SPARK_RUNS:]
    low, high = min(recent), max(recent)
    across, up = 96 / max(1, len(recent) - 1), 20 / ((high - low) or 1)
    points = [f"{2 + at * across:.1f},{22 - (v - low) * up:.1f}" for at, v in enumerate(recent)]
    return TrendSummary(
        page=trend.page,
        digest=trend.digest,
        newest=trend.runs[-1].id,
        notebook=trend.runs[-1].notebook,
        label=trend.label,
        host=str(trend.runs[-1].host),
        unit=trend.scrap.unit or "",
        runs=len(trend.runs),
        last=short_number(trend.values[-1]),
        spark=" ".join(points),
        step=describe_change(trend, last) if last else None,
        step_day=trend.runs[last.at].started[:10] if last else None,
        step_better=bool(last and last.better),
        can_tell=trend.can_tell,
    )


def render_trend(root: Path, trend: Trend) -> str:
    """Return the page of one trend: its line, its steps and what changed there, all its runs."""
    steps = [
        {
            "change": describe_change(trend, step),
            "better": step.better,
            "levels": f"{format_number(step.before)} → {format_number(step.after)}",
            "before": trend.runs[step.at - 1],
            "after": trend.runs[step.at],
            "why": explain_step(root, trend.runs[step.at - 1], trend.runs[step.at]),
        }
        for step in reversed(trend.steps)
    ]
    newest = list(trend)[: -MOST_ROWS - 1 : -1]
    runs = [(run, format_number(value)) for run, value in newest]
    return render_page(
        "trend.html.j2",
        trend=trend,
        steps=steps,
        runs=runs,
        chart=_draw(trend),
        fewest=FEWEST_RUNS,
    )


def _draw(trend: Trend) -> dict[str, Any]:
    """The places of everything in the picture, in pixels: one run after the other from the left."""
    values, count = trend.values, len(trend.values)
    ends = [end for interval in trend.intervals for end in interval or ()]
    low, high = _range(values, ends)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    step_x = (WIDTH - LEFT - RIGHT) / max(1, count - 1)

    def x(at: float) -> str:
        return f"{LEFT + at * step_x:.1f}"

    def y(value: float) -> str:
        return f"{TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    bars = [
        (x(at), y(min(high, interval[1])), y(max(low, interval[0]))) if interval else None
        for at, interval in enumerate(trend.intervals)
    ]
    places = [0, *(step.at for step in trend.steps), count]
    levels = [trend.steps[0].before] if trend.steps else [statistics.median(values)]
    levels += [step.after for step in trend.steps]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "top": TOP,
        "ticks": [(y(tick), short_number(tick)) for tick in _ticks(low, high)],
        "line": " ".join(f"{x(at)},{y(value)}" for at, value in enumerate(values)),
        "levels": [
            (x(start), x(end - 1), y(level))
            for (start, end), level in zip(pairwise(places), levels, strict=True)
        ],
        "steps": [(x(step.at - 0.5), step.better) for step in trend.steps],
        "bars": [bar for bar in bars if bar] if count <= MOST_MARKS else [],
        "bands": list(_outline(bars)) if count > MOST_MARKS else [],
        "points": [(x(at), y(value)) for at, value in enumerate(values)]
        if count <= MOST_MARKS
        else [],
    }


def _outline(bars: Sequence[tuple[str, str, str] | None]) -> Iterator[str]:
    """Yield the outline of each stretch of runs that have intervals: along the upper ends, and back
    along the lower ones."""
    for known, stretch in groupby(bars, bool):
        if known:
            ends = [bar for bar in stretch if bar]
            upper = [f"{at},{top}" for at, top, _ in ends]
            yield " ".join([*upper, *(f"{at},{bottom}" for at, _, bottom in reversed(ends))])


def _range(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """What the picture spans: all values, and of their intervals what does not flatten the line."""
    low, high = min(values), max(values)
    room = (high - low) or 0.1 * abs(high)
    return max(low - room, min([low, *ends])), min(high + room, max([high, *ends]))


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two others."""
    size = 10 ** math.floor(math.log10((high - low) / 3))
    size *= next((times for times in (5, 2) if (high - low) / (size * times) >= 3), 1)
    first = math.ceil(low / size)
    return [round(at * size, 12) for at in range(first, math.floor(high / size) + 1)]


def _read_cache(folder: Path) -> dict[str, TrendSummary]:
    try:
        cache = _Cache.model_validate_json((folder / CACHE_FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return cache.trends if cache.language == language_in_force() else {}
