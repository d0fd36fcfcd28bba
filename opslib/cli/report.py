"""`pillops run`, `report`, `snapshot` and `lab`: notebooks in, reports out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from opslib.cli.doors import describe_experiment, make_console, plain_cells, say, say_verdict
from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode, InputError
from opslib.core.formatting import format_ms

if TYPE_CHECKING:
    from opslib.measure.bench.compare import RecordComparison, RowComparison

ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]
RootOption = Annotated[Path | None, typer.Option(help="Report folder; default: the config's.")]
OUTCOME_STYLES = {"better": "green", "worse": "red bold", "not comparable": "dim"}


class RunCommand(TyperCommand):
    """Takes a parameter as papermill does, `-p key value`, beside `-p key=value`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse after joining each `-p key value` into `-p key=value`."""
        joined: list[str] = []
        for word in args:
            if joined[-2:-1] in (["-p"], ["--parameter"]) and "=" not in joined[-1]:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


report_app = typer.Typer(help="Compare, check, list and adopt reports.", no_args_is_help=False)


def run(
    notebook: Annotated[str, typer.Argument(help="Name (bench, 01_bench) or path.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="key value or key=value, repeatable."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="YAML of parameters.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the run.", min=0.1)] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the lock.", min=0)] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The report's folder itself.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Another Jupyter kernel.")] = None,
    config: ConfigOption = None,
) -> int:
    """Run a notebook and leave a dated report; the exit code is the report's verdict."""
    from opslib.reporting.figures import short_number
    from opslib.reporting.parameters import read_assignments, read_parameter_file
    from opslib.reporting.runner import run_notebook

    given = {**(read_parameter_file(file) if file else {}), **read_assignments(parameter or [])}
    loaded = load_config(config)
    notes = make_console(stderr=True)
    say(notes, f"{notebook} on {describe_experiment(loaded)}")
    with show_steps(notes) as progress:
        record = run_notebook(
            notebook,
            parameters=given,
            config=loaded,
            timeout_s=timeout,
            wait_s=wait,
            out=out,
            kernel=kernel,
            progress=progress,
        )
    console = make_console()
    if record.key_figures:
        table = Table(box=None, pad_edge=False, show_header=False)
        for figure in record.key_figures:
            value = short_number(figure.value) if isinstance(figure.value, float) else figure.value
            cells = (figure.label or figure.name, f"{value} {figure.unit or ''}")
            table.add_row(*plain_cells(cells))
        console.print(table)
    say_verdict(console, record.tone, record.sentence, word=record.word)
    if record.change is not None:
        say(console, f"since the last run: {record.change.summary}")
    folder = out.absolute() if out else loaded.report_dir / report_folder(record.id)
    say(console, f"report: {folder / record.report_name}")
    return record.exit_code


@report_app.command()
def diff(
    baseline: Annotated[str, typer.Argument(help="Run id, folder or bench record.")],
    candidate: Annotated[str, typer.Argument(help="Run id, folder or bench record.")],
    across_models: Annotated[bool, typer.Option(help="Compare different models.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Show what differs between two benchmarks, beyond their noise."""
    from opslib.reporting.diff import compare_runs

    folder = _root(root, config)
    comparison = compare_runs(baseline, candidate, folder, across_models=across_models)
    _show_comparison(make_console(), comparison)
    return int(ExitCode.PASS)


@report_app.command()
def check(
    against: Annotated[str | None, typer.Option(help="Run to hold it against.")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Hold the newest benchmark against the last comparable one; exit 3 on a regression."""
    from opslib.measure.bench.compare import compare_records
    from opslib.reporting.diff import find_check_pair, read_bench

    old, new = find_check_pair(_root(root, config), against)
    comparison = compare_records(read_bench(old), read_bench(new))
    console = make_console()
    say(console, f"{new.parent.name} against {old.parent.name}")
    _show_comparison(console, comparison)
    if not comparison.comparable:
        return int(ExitCode.INCONCLUSIVE)
    return int(ExitCode.GATE_FAILED if comparison.count("worse") else ExitCode.PASS)


@report_app.command()
def index(root: RootOption = None, config: ConfigOption = None) -> int:
    """Write the page that lists every report, newest first."""
    from opslib.reporting.index import build_index

    say(make_console(), str(build_index(_root(root, config))))
    return int(ExitCode.PASS)


@report_app.command()
def adopt(
    notebook: Annotated[Path, typer.Argument(help="Executed notebook in the report folder.")],
    root: RootOption = None,
    config: ConfigOption = None,
) -> int:
    """Give a notebook that plain papermill wrote its HTML page and record."""
    from opslib.reporting.adopt import adopt_notebook
    from opslib.reporting.index import build_index

    folder, path = _root(root, config), notebook.absolute()
    if not path.is_relative_to(folder):
        raise InputError(f"{notebook}: lies outside the report folder {folder}")
    record = adopt_notebook(path, folder)
    build_index(folder)
    console = make_console()
    say(console, f"{record.word}: {record.sentence}")
    say(console, f"report: {path.with_name(record.report_name)}")
    return record.exit_code


def snapshot(
    check: Annotated[bool, typer.Option(help="Only say whether the tables are current.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done.")] = False,
    document: Annotated[Path | None, typer.Option(help="Default: docs/PERFORMANCE.md.")] = None,
    config: ConfigOption = None,
) -> int:
    """Rewrite the measured tables of docs/PERFORMANCE.md from the newest successful runs."""
    from opslib.core.plans import carry_out
    from opslib.reporting.snapshot import plan_snapshot

    loaded = load_config(config)
    target = document or loaded.root / "docs" / "PERFORMANCE.md"
    plan = plan_snapshot(target.absolute(), loaded.report_dir)
    console = make_console()

    def show(line: str) -> None:
        say(console, line)

    if check:
        for line in plan.lines():
            show(line)
        return int(ExitCode.GATE_FAILED if plan.actions else ExitCode.PASS)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.describe()}: {skipped.reason}")
    return int(ExitCode.SKIPPED if outcome.skipped else ExitCode.PASS)


def lab(
    port: Annotated[int, typer.Option(help="Port of the server.", min=0, max=65535)] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    config: ConfigOption = None,
) -> int:
    """Open JupyterLab on the landing notebook."""
    from opslib.reporting.lab import open_lab

    open_lab(load_config(config), port=port, browser=browser)


@contextmanager
def show_steps(notes: Console) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a step: a spinner on a terminal, plain lines elsewhere."""
    if not notes.is_terminal:
        yield lambda text: say(notes, text)
        return
    with notes.status("starting the kernel") as status:
        yield lambda text: status.update(Text(text))


def report_folder(run_id: str) -> str:
    """Return the folder of a run's id, relative to the report folder."""
    day, _, rest = run_id.partition("-")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}/{rest}"


def _root(root: Path | None, config: Path | None) -> Path:
    folder = root.absolute() if root is not None else _load(config).report_dir
    if not folder.is_dir():
        raise InputError(f"{folder}: no such report folder; `pillops run` makes one")
    return folder


def _load(config: Path | None) -> Config:
    return load_config(config)


def _show_comparison(console: Console, comparison: RecordComparison) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("engine", "provider", "batch", "boundary"):
        table.add_column(title, justify="right" if title == "batch" else "left")
    for title in ("before ms", "after ms", "change", "99 % interval"):
        table.add_column(title, justify="right")
    table.add_column("outcome")
    for row in comparison.rows:
        style = OUTCOME_STYLES.get(row.outcome)
        cells = (
            row.engine,
            row.provider,
            str(row.batch_size),
            row.boundary.replace("_", " "),
            format_ms(row.baseline_p50_ms),
            format_ms(row.candidate_p50_ms),
            *_change_cells(row),
            f"{row.outcome}: {row.reason}" if row.reason else row.outcome,
        )
        table.add_row(*plain_cells(cells), style=style)
    console.print(table)
    say(console, comparison.summary)


def _change_cells(row: RowComparison) -> tuple[str, str]:
    if row.change_pct is None or row.latency_ratio_ci99 is None:
        return "–", "–"
    low, high = (100 * (end - 1) for end in row.latency_ratio_ci99)
    return f"{row.change_pct:+.1f} %", f"{low:+.1f} to {high:+.1f} %"
