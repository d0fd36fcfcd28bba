"""A checklist told to people: the items with their evidence, logs, disks, speed, and lately."""

import re
from html import escape
from pathlib import Path

from IPython.display import display
from pandas import DataFrame

from opslib.core.config import Config
from opslib.core.formatting import format_bytes, format_ms
from opslib.core.language import tr, tr_many
from opslib.ops.checklist.figures import describe_disks, describe_lately, draw_disks, draw_lately
from opslib.ops.checklist.items import PERIOD_WORDS, DiskFacts, Item, LogGroup, SpeedChange, State
from opslib.ops.checklist.record import ChecklistRecord, read_checklists
from opslib.telling.columns import Column, page_table
from opslib.telling.figures import show_figure, show_table
from opslib.telling.scraps import publish, publish_outcome

_OPEN = ("inconclusive", "background:#fcf0d6;color:#6e4600")
# Of each state the class of its badge, and its colours in JupyterLab.
BADGES: dict[State, tuple[str, str]] = {
    "failed": ("fail", "background:#fde8e8;color:#931a1f"),
    "attention": _OPEN,
    "unknown": _OPEN,
    "ok": ("pass", "background:#e3f4ea;color:#0a5c33"),
    "not applicable": ("", "background:#e9edf3;color:#3c4757"),
}
_CODE = re.compile(r"`([^`]+)`")
MAX_GROUPS = 25


def show_items(record: ChecklistRecord) -> None:
    """Show every item, the worst first: its state, what was found, and what to do next."""
    _display(items_html(record), items_text(record))


def items_html(record: ChecklistRecord) -> str:
    """Return the list of `show_items`."""
    label = tr("The {period} checklist, the worst first", period=tr(PERIOD_WORDS[record.period]))
    rows = "".join(_row(item) for item in record.by_state())
    return f'<ul class="pillops-items" aria-label="{label}" style="list-style:none">{rows}</ul>'


def items_text(record: ChecklistRecord) -> str:
    """Return the items as lines of text."""
    lines = []
    for item in record.by_state():
        lines.append(f"{item.state_word}: {item.shown_title}: {'; '.join(item.told)}")
        if item.next_step:
            lines.append("    " + tr("next: {step}", step=item.next_step))
    return "\n".join(lines)


def show_errors(record: ChecklistRecord) -> None:
    """Show the error lines of the logs, grouped by what they say, or that there were none."""
    groups = [group for item in record.items for group in item.groups]
    if not groups:
        since = record.since_utc[:16].replace("T", " ")
        _say(tr("No error line since {since} UTC.", since=since))
        return
    more = len(groups) - MAX_GROUPS
    caption = tr("Errors by message, the most frequent first")
    if more > 0:
        caption += tr_many(
            "; {count} rarer group not shown", "; {count} rarer groups not shown", more
        )
    show_table(errors_frame(record), caption=caption)


def errors_frame(record: ChecklistRecord) -> DataFrame:
    """Return the groups of error lines as a table: log, count, first and last time, message."""
    groups = [group for item in record.items for group in item.groups]
    return page_table(_ERRORS, sorted(groups, key=lambda group: -group.count)[:MAX_GROUPS])


def show_disks(record: ChecklistRecord) -> None:
    """Show how full each disk is and was, and the numbers behind it."""
    disks = _disks(record)
    if not disks:
        _say(tr("No disk could be read."))
        return
    show_figure(lambda theme: draw_disks(disks, theme), alt=describe_disks(disks))
    show_table(disks_frame(record), caption=tr("Disks: use, growth, and when they are full"))


def disks_frame(record: ChecklistRecord) -> DataFrame:
    """Return the disks as a table: size, use, growth with its 95 % interval, days until full."""
    return page_table(_DISKS, _disks(record))


def show_speeds(record: ChecklistRecord) -> None:
    """Show the last benchmark against the one before, or why there is nothing to show."""
    item = record.item("benchmark")
    if item is None:
        _say(tr("Benchmarks are looked at monthly."))
    elif not item.speeds:
        _say("; ".join(item.evidence) + ".")
    else:
        show_table(speeds_frame(record), caption=tr("The last benchmark against the one before"))


def speeds_frame(record: ChecklistRecord) -> DataFrame:
    """Return the changes of latency, in ms and percent with intervals that hold together with
    99 %, slowest first."""
    speeds = [speed for item in record.items for speed in item.speeds]
    return page_table(_SPEEDS, sorted(speeds, key=lambda speed: -speed.change_pct))


def show_lately(record: ChecklistRecord, config: Config) -> None:
    """Show the states of all items in the last runs, this one included."""
    now = record.lineage.created_at_utc  # it may be among those kept already
    runs = [*(one for one in read_checklists(config) if one.lineage.created_at_utc < now), record]
    if len(runs) < 2:
        _say(tr("This is the first run of the checklist that was kept."))
        return
    show_figure(lambda theme: draw_lately(runs, theme), alt=describe_lately(runs))


def publish_checklist(record: ChecklistRecord, path: Path) -> None:
    """Publish the verdict, how many items are in which state, and the key figures."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    publish("failed_items", record.count("failed"), better="lower", label=tr("Failed"))
    attention = record.count("attention") + record.count("unknown")
    publish("attention_items", attention, better="lower", label=tr("Want attention"))
    publish("ok_items", record.count("ok"), better="higher", label=tr("Ok"))
    errors = sum(g.count for item in record.items for g in item.groups if not g.ignored)
    publish("error_lines", errors, better="lower", label=tr("Error lines in logs"))
    disks = _disks(record)
    if disks:
        fullest = max(disks, key=lambda disk: disk.used_pct)
        label = tr("Fullest disk ({mount})", mount=fullest.mount)
        used_pct = round(fullest.used_pct, 1)
        publish("disk_used_pct", used_pct, unit="%", better="lower", label=label)


def _row(item: Item) -> str:
    badge, colours = BADGES[item.state]
    classes = f"badge {badge}".strip()
    style = f"padding:.1em .7em;border-radius:99px;font-weight:600;{colours}"
    lines = [escape(line) for line in item.told]
    if item.next_step:
        step = _CODE.sub(r"<code>\1</code>", escape(item.next_step))
        word = escape(tr("Next:"))
        lines.append(f"<strong>{word}</strong> {step}")
    return (
        f'<li style="margin:.4em 0"><span class="{classes}" style="{style}">'
        f"{item.state_word}</span>"
        f"<div><strong>{escape(item.shown_title)}</strong><br>{'<br>'.join(lines)}</div></li>"
    )


def _disks(record: ChecklistRecord) -> list[DiskFacts]:
    return [disk for item in record.items for disk in item.disks]


def _growth(disk: DiskFacts) -> str | None:
    value, ends = disk.growth_bytes_per_day, disk.growth_ci95_bytes_per_day
    if value is None or ends is None:
        return None
    shown, low, high = (format_bytes(one).replace("-", "−") for one in (value, *ends))
    return f"{shown} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.1f} %".replace("-", "−")


def _minute(moment_utc: str | None) -> str | None:
    """A moment to the minute, which no column breaks apart."""
    return moment_utc[:16].replace("T", "\u00a0").replace("-", "\u2011") if moment_utc else None


_ERRORS: tuple[Column[LogGroup], ...] = (
    Column("log", lambda group: group.source),
    Column("level", lambda group: f"{group.level}{', ignored' if group.ignored else ''}"),
    Column("count", lambda group: group.count),
    Column("first (UTC)", lambda group: _minute(group.first_utc)),
    Column("last (UTC)", lambda group: _minute(group.last_utc)),
    Column("message, the last one", lambda group: group.example),
)
_DISKS: tuple[Column[DiskFacts], ...] = (
    Column("mount", lambda disk: disk.mount),
    Column("size", lambda disk: format_bytes(disk.total_bytes)),
    Column("used %", lambda disk: round(disk.used_pct, 1)),
    Column("free", lambda disk: format_bytes(disk.free_bytes)),
    Column("readings", lambda disk: len(disk.history)),
    Column("growth a day (95 % interval)", _growth),
    Column("full in days", lambda disk: disk.days_until_full),
    Column("at the earliest", lambda disk: disk.days_until_full_earliest),
)
_SPEEDS: tuple[Column[SpeedChange], ...] = (
    Column("row", lambda speed: speed.what),
    Column("before ms", lambda speed: format_ms(speed.before_ms)),
    Column("now ms", lambda speed: format_ms(speed.after_ms)),
    Column("change", lambda speed: _signed(speed.change_pct)),
    Column(
        "interval (all together 99 %)",
        lambda speed: " to ".join(map(_signed, speed.change_ci99_pct)),
    ),
    Column("outcome", lambda speed: speed.outcome),
)


def _say(text: str) -> None:
    _display(f"<p>{escape(text)}</p>", text)


def _display(html: str, text: str) -> None:
    display({"text/html": html, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
