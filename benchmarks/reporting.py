"""How much do reports cost? The runner beyond the notebook's own work, and the index.

The runner's overhead is the wall time of a whole `pillops run` process less the time that the
notebook's cells took; the median of several runs. The index and the pages of all trends are built
over invented runs, whose figures have noise, intervals and a step every second month.

    python benchmarks/reporting.py [--runs 1000] [--repeats 3]

Exit code 3 when a figure is over its bound.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from opslib.core.config import find_config
from opslib.core.lineage import record_lineage
from opslib.runs.catalogue import newest_first, scan_runs
from opslib.runs.index import INDEX_FILE, build_index
from opslib.runs.notebooks import notebook_text
from opslib.runs.run_record import RUN_FILE, RunChange, RunRecord
from opslib.runs.trend_pages import TRENDS_FOLDER, build_trends
from opslib.telling.scraps import Scrap

CELLS = (
    "import time\ntime.sleep(1)",
    "from opslib.telling.figures import show_verdict\n"
    "from opslib.telling.scraps import publish, publish_outcome",
    "publish('latency', 1.5, unit='ms', better='lower')\n"
    "show_verdict('pass', 'It answers in time.')\n"
    "publish_outcome('pass', 'It answers in time.')",
)
Figure = tuple[str, float, float | None, str]


def write_project(folder: Path) -> Path:
    """Write a project with one small notebook; return its configuration."""
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(
        cells=[new_code_cell(source) for source in CELLS], metadata={"pillops": {"timed": False}}
    )
    path = folder / "notebooks" / "toy.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(notebook_text(notebook))
    config = folder / "config.yaml"
    config.write_text("paths:\n  exp_dir: exp\n  data_root: images\n")
    return config


def measure_runner(folder: Path, repeats: int) -> list[Figure]:
    """Return the runner's overhead and what publishing costs inside the notebook, in seconds."""
    config = write_project(folder)
    command = [sys.executable, "-m", "opslib.cli", "run", "toy", "--config", str(config)]
    overheads, publishing = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall_s = time.perf_counter() - started
        newest = max((folder / "reports").glob("*/*/toy.ipynb"), key=lambda p: p.stat().st_mtime)
        cells = json.loads(newest.read_text())["cells"]
        durations_s = [cell["metadata"]["papermill"]["duration"] for cell in cells]
        overheads.append(wall_s - sum(durations_s))
        publishing.append(durations_s[-1])
    return [
        ("runner beyond the notebook's own cells", statistics.median(overheads), 5.0, "s"),
        ("first publish inside the notebook", statistics.median(publishing), None, "s"),
    ]


def invent_figures(number: int, rng: random.Random) -> Iterator[Scrap]:
    """Yield six figures of one run: two percent of noise, another level every second month."""
    for engine in ("onnx", "torch"):
        for name, unit, better in (
            ("p50_ms", "ms", "lower"),
            ("relative", "×", "lower"),
            ("throughput_img_s", "img/s", "higher"),
        ):
            value = (1 + 0.1 * (number % 12 // 2 % 2)) * rng.gauss(100, 2)
            yield Scrap(
                name=f"{engine}_{name}",
                value=value,
                unit=unit,
                better=better,
                interval=(0.98 * value, 1.02 * value),
                label=f"{engine}, {name}",
            )


def write_runs(root: Path, count: int) -> RunRecord:
    """Write `count` runs of a year as the runner does, one in twenty not finished; return one."""
    lineage = record_lineage(find_config().parent)
    change = RunChange(
        against_id="20260101-100000-01_bench-abcdef",
        against_path="2026-01-01/100000-01_bench-abcdef/01_bench.html",
        better=1,
        worse=0,
        unchanged=11,
        not_comparable=0,
        summary="1 row better (most: onnx on CPU, batch 8, inference 4.1 % faster), "
        "11 rows without a measurable change",
    )
    rng = random.Random(0)
    for number in range(count):
        failed = number % 20 == 0
        day = f"2026-{1 + number % 12:02d}-{1 + number // 12 % 28:02d}"
        clock = f"{number // 3600 % 24:02d}{number // 60 % 60:02d}{number % 60:02d}"
        run = RunRecord(
            id=f"{day.replace('-', '')}-{clock}-01_bench-{number:06x}",
            notebook="01_bench",
            title="How fast does the model answer?",
            status="timeout" if failed else "finished",
            exit_code=5 if failed else 0,
            verdict=None if failed else "pass",
            finding=f"ONNX Runtime on CPU answers one image in {1 + number / 1000:.3f} ms (±1.6 %) "
            "and reaches 4,517 img/s at batch 8.",
            problem=None,
            started=f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z",
            ended=f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z",
            duration_s=60.0,
            parameters={"batch": [1, 2, 4, 8, 16, 32], "engine": "both"},
            changed_parameters=(),
            notebook_sha256="ab" * 32,
            lineage=lineage,
            key_figures=tuple(invent_figures(number, rng)),
            change=change,
        )
        folder = root / day / f"{clock}-01_bench-{number:06x}"
        folder.mkdir(parents=True)
        (folder / RUN_FILE).write_text(run.to_json())
    return run


def measure_index(root: Path, count: int) -> list[Figure]:
    """Return what the index and the trends cost over `count` runs, from nothing and after one more,
    and how large their pages are."""
    run = write_runs(root, count)
    figures = time_pages(root, f"of {count:,} runs, from nothing", 5)
    folder = root / "2027-01-01" / "100000-01_bench-ffffff"
    folder.mkdir(parents=True)
    newest = run.model_copy(update={"id": "20270101-100000-01_bench-ffffff"})
    (folder / RUN_FILE).write_text(newest.to_json())
    figures += time_pages(root, "after one more run", 0.5)
    figures.append(("index page", (root / INDEX_FILE).stat().st_size / 1000, 500.0, "kB"))
    largest = max(one.stat().st_size for one in (root / TRENDS_FOLDER).glob("*.html"))
    figures.append(("largest page of the trends", largest / 1000, 500.0, "kB"))
    return figures


def time_pages(root: Path, when: str, bound_s: float) -> list[Figure]:
    """Return how long the pages of the trends take, and the index after them."""
    rows = newest_first(scan_runs(root))
    started = time.perf_counter()
    build_trends(root, rows)
    trends_s = time.perf_counter() - started
    started = time.perf_counter()
    build_index(root)
    index_s = time.perf_counter() - started
    return [
        (f"trends {when}", trends_s, bound_s, "s"),
        (f"index {when}", index_s, bound_s, "s"),
    ]


def show(figures: list[Figure]) -> bool:
    """Print the figures with their bounds; return whether all are kept."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("what", "measured", "bound", ""):
        table.add_column(title, justify="left" if title in ("what", "") else "right")
    kept = True
    for name, value, bound, unit in figures:
        missed = bound is not None and value > bound
        kept = kept and not missed
        limit = "–" if bound is None else f"{bound:g} {unit}"
        table.add_row(name, f"{value:.2f} {unit}", limit, "missed" if missed else "")
    Console(width=100).print(table)
    return kept


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = measure_runner(folder / "project", options.repeats)
        figures += measure_index(folder / "reports", options.runs)
    return 0 if show(figures) else 3


if __name__ == "__main__":
    sys.exit(main())
