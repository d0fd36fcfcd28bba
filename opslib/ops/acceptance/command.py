"""`pillops acceptance`: walk through every operation once and leave the report."""

from functools import partial
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from opslib.core.config import load_config
from opslib.core.formatting import format_duration
from opslib.runs.command import report_folder
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    plain_cells,
    say,
    say_verdict,
)
from opslib.telling.progress import show_steps

NOTEBOOK = "07_acceptance"
_STYLES = {"pass": "green", "fail": "red bold", "not run": "yellow"}


def acceptance(
    budget: Annotated[
        float | None, typer.Option(help="Seconds for each measured step.", min=5)
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Walk through every operation once on the demo experiment; print the table, leave a report."""
    from opslib.ops.acceptance.record import AcceptanceRecord
    from opslib.runs.publish import publish_new
    from opslib.runs.runner import run_notebook

    loaded = load_config(config)
    notes = make_console(stderr=True)
    say(notes, f"{NOTEBOOK} on {describe_experiment(loaded)}")
    parameters = {} if budget is None else {"budget_s": budget}
    with show_steps(notes) as progress:
        run = run_notebook(NOTEBOOK, parameters=parameters, config=loaded, progress=progress)
    console = make_console()
    folder = loaded.report_dir / report_folder(run.id)
    if run.record is not None:
        record = AcceptanceRecord.read(folder / run.record)
        table = Table(box=None, pad_edge=False)
        for name in ("step", "result", "took", "seen"):
            table.add_column(name)
        for step in record.steps:
            state = Text(step.state, style=_STYLES[step.state])
            title, took, seen = plain_cells(
                (f"{step.number}. {step.title}", format_duration(step.took_s), step.evidence)
            )
            table.add_row(title, state, took, seen)
        console.print(table)
        say(console, f"external address: {record.external}")
    say_verdict(console, run.tone, run.sentence, word=run.word)
    say(console, f"report: {folder / run.report_name}")
    publish_new(loaded, partial(say, notes))
    return run.exit_code
