"""What the landing notebook shows: the notebooks, how to run each, and the last reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.config import Config
from opslib.core.language import tr, tr_many
from opslib.core.verdicts import Verdict
from opslib.runs.catalogue import scan_runs
from opslib.runs.html import find_title
from opslib.runs.notebooks import notebook_folder, read_notebook
from opslib.runs.parameters import read_parameters

if TYPE_CHECKING:
    from pandas import DataFrame

LANDING_NAME = "00_start"


def list_notebooks(config: Config) -> DataFrame:
    """Return each notebook's name, the question it answers, its command and its parameters."""
    from pandas import DataFrame

    notebooks = ((path.stem, read_notebook(path)) for path in _paths(config))
    rows = [
        (
            name,
            find_title(notebook, name),
            f"pillops run {name}",
            ", ".join(read_parameters(notebook)) or "none",
        )
        for name, notebook in notebooks
    ]
    return DataFrame(rows, columns=["Notebook", "Question", "Run it", "Parameters (-p name=value)"])


def list_reports(config: Config, count: int) -> DataFrame:
    """Return the newest `count` reports: when, which notebook and its answer."""
    from pandas import DataFrame

    rows = [
        (run.started[:16].replace("T", " "), run.notebook, tr(run.word), tr(run.sentence))
        for run in scan_runs(config.report_dir)[:count]
    ]
    return DataFrame(rows, columns=["Started (UTC)", "Notebook", "Verdict", "Finding"])


def describe_state(config: Config) -> tuple[Verdict, str]:
    """Return whether the notebooks can be run, and in one sentence why or what to do first."""
    models = [path for path in config.export_dir.glob("*.onnx") if not path.is_symlink()]
    if not models:
        missing = tr(
            "No model lies in {folder}: make the demo with `pillops demo`.",
            folder=config.export_dir,
        )
        return "inconclusive", missing
    reports, notebooks = len(scan_runs(config.report_dir)), len(_paths(config))
    there = ", ".join(
        (
            tr_many("{count:,} model", "{count:,} models", len(models)),
            tr_many("{count:,} notebook", "{count:,} notebooks", notebooks),
            tr_many("{count:,} report", "{count:,} reports", reports),
        )
    )
    if config.is_demo:
        return "pass", tr("The demo experiment is ready: {there}.", there=there)
    return "pass", tr("The experiment is ready: {there}.", there=there)


def _paths(config: Config) -> list[Path]:
    found = sorted(notebook_folder(config).glob("*.ipynb"))
    return [path for path in found if path.stem != LANDING_NAME]
