"""An acceptance walk told: its table, its figure of where the time went, its scraps."""

from pathlib import Path

from matplotlib import pyplot
from matplotlib.figure import Figure
from pandas import DataFrame

from opslib.core.formatting import format_duration
from opslib.core.language import tr
from opslib.ops.acceptance.record import AcceptanceRecord, AcceptanceStep
from opslib.telling.columns import Column, page_table
from opslib.telling.scraps import publish, publish_outcome
from opslib.telling.themes import Theme


def steps_frame(record: AcceptanceRecord) -> DataFrame:
    """Return one row a step: what was asked, the command, how it went and what was seen."""
    columns: tuple[Column[AcceptanceStep], ...] = (
        Column("Step", lambda step: f"{step.number}. {step.title}"),
        Column("Result", lambda step: step.state),
        Column("Seen", lambda step: step.evidence),
        Column("Command", lambda step: step.command),
        Column("Took", lambda step: format_duration(step.took_s)),
    )
    return page_table(columns, record.steps)


def draw_times(record: AcceptanceRecord, theme: Theme) -> Figure | None:
    """Draw how long each step took; a step that failed or was not run has its own colour. None
    where there was no step."""
    if not record.steps:
        return None
    colours = {"pass": theme.better, "fail": theme.worse, "not run": theme.neutral}
    figure, axes = pyplot.subplots()
    for step in reversed(record.steps):
        name = f"{step.number}. {step.title}"
        bar = axes.barh(name, step.took_s, color=colours[step.state])
        axes.bar_label(bar, [format_duration(step.took_s)], padding=4)
    axes.grid(visible=False)
    axes.margins(x=0.12)
    axes.set_xlabel("seconds")
    axes.set_title("Where the time went")
    return figure


def describe_times(record: AcceptanceRecord) -> str:
    """Return what `draw_times` shows, for readers who cannot see it."""
    if not record.steps:
        return "No step was walked."
    parts = [f"{step.title}: {step.took_s:.0f} s, {step.state}" for step in record.steps]
    return "Seconds of each step. " + "; ".join(parts) + "."


def publish_acceptance(record: AcceptanceRecord, record_path: Path) -> None:
    """Publish the verdict and how many steps passed."""
    publish_outcome(record.verdict, record.finding, record_path=record_path)
    passed = sum(step.state == "pass" for step in record.steps)
    publish(
        "steps_passed",
        passed,
        better="higher",
        label=tr("Steps passed of {count}", count=len(record.steps)),
    )
    took_s = round(sum(step.took_s for step in record.steps))
    publish("walk_s", took_s, unit="s", better="lower", label=tr("The whole walk"))
