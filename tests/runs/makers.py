"""Toy notebooks, projects and records for the tests of reports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from opslib.core.config import Config, load_config
from opslib.core.host import HostFacts
from opslib.core.lineage import Lineage
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.ops.bench.record import BenchRecord, BenchRow, LatencyMs
from opslib.runs.run_record import RUN_FILE, RunRecord, list_run_files
from opslib.telling.scraps import Scrap
from opslib.timing.disturbance import Disturbance
from tests.models import write_config

PARAMETERS = """\
count: int = 3  # 1..10 rounds
name: str = "x"  # any text
mode: str = "a"  # a|b
"""
PUBLISH = """\
from opslib.telling.figures import show_verdict
from opslib.telling.scraps import publish, publish_outcome

publish("latency", 1.5, unit="ms", better="lower", label="Latency")
show_verdict({verdict!r}, "It answers in time.")
publish_outcome({verdict!r}, "It answers in time."{more})
"""


def publish_cell(verdict: str = "pass", more: str = "") -> str:
    """Return a cell that shows and publishes a verdict."""
    return PUBLISH.format(verdict=verdict, more=more)


def toy_notebook(*cells: str, timed: bool = False, title: str = "Does the toy work?") -> Any:
    """Return a notebook with a title, a parameter cell and these code cells."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(metadata={"kernelspec": kernel, "pillops": {"timed": timed}})
    notebook.cells = [
        new_markdown_cell(f"# {title}\n\nIt asks and it answers."),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_markdown_cell("## Work"),
        *(new_code_cell(source) for source in cells),
    ]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def make_project(folder: Path, *cells: str, timed: bool = False, name: str = "01_toy") -> Config:
    """Write a project with one toy notebook and return its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(write_config(folder))
    notebook = folder / "notebooks" / f"{name}.ipynb"
    notebook.parent.mkdir(exist_ok=True)
    nbformat.write(toy_notebook(*cells, timed=timed), notebook)
    return config


def make_lineage(
    fingerprint: str = "a1b2c3d4e5f6", cpu: str | None = None, name: str | None = None
) -> Lineage:
    """Return the lineage of an invented host, another one for each fingerprint."""
    host = HostFacts(
        cpu=cpu or ("A Processor" if fingerprint == "a1b2c3d4e5f6" else "Another Processor"),
        isa=("avx2",),
        cpus_total=4,
        cpus_usable=2,
        cpu_quota_cores=None,
        memory_bytes=8 << 30,
        os="Linux 6",
        python="3.11.7",
        gpus=(),
        name=name,
    )
    return Lineage(
        created_at_utc="2026-11-23T15:00:00+00:00",
        git_sha="0123abc",
        git_dirty=False,
        host=host,
        host_fingerprint=fingerprint,
        versions={"numpy": "2.4"},
    )


def bench_row(p50_ms: float, **changes: Any) -> BenchRow:
    """Return a measured row of four blocks around a median latency, one percent apart."""
    blocks = tuple((p50_ms * factor,) * 5 for factor in (0.995, 1.0, 1.005, 1.0))
    latency = LatencyMs(p50=p50_ms, p90=None, p99=None, ci95=(p50_ms * 0.99, p50_ms * 1.01), n=20)
    row = BenchRow(
        engine="onnx",
        provider="CPU",
        requested_providers="CUDA,CPU",
        batch_size=1,
        threads=2,
        boundary="inference",
        status="measured",
        latency_ms=latency,
        throughput_img_s=1000 / p50_ms,
        raw_ms=blocks,
    )
    return row.model_copy(update=changes)


def make_bench(
    rows: Sequence[BenchRow] = (), *, lineage: Lineage | None = None, **changes: Any
) -> BenchRecord:
    """Return a bench record of these rows on an invented host."""
    record = BenchRecord(
        verdict="pass",
        finding="It is fast.",
        exit_code=0,
        lineage=lineage or make_lineage(),
        model=ModelFacts(
            name="model.onnx",
            sha256="ab" * 32,
            size_bytes=1000,
            num_classes=3,
            input_shape=("N", 3, 16, 16),
            input_dtype="float32",
        ),
        checkpoint=None,
        inputs=InputFacts(glob="*.jpg", count=4, sha256="cd" * 32, skipped=()),
        preprocess="opslib.inference.preprocess:preprocess",
        img_size=16,
        seed=0,
        budget_s=1.0,
        wall_s=1.0,
        target_half_width_pct=5.0,
        disturbance=Disturbance.model_validate(
            {**dict.fromkeys(Disturbance.model_fields), "wall_s": 1.0}
        ),
        parity=None,
        noise_floor=None,
        comparisons=(),
        rows=tuple(rows) or (bench_row(2.0),),
    )
    return record.model_copy(update=changes)


def make_run(number: int = 0, **changes: Any) -> RunRecord:
    """Return the record of an invented run, one minute after the one before."""
    clock = f"{10 + number // 3600 % 10:02d}{number // 60 % 60:02d}{number % 60:02d}"
    day = f"2026-{1 + number // 500 % 12:02d}-01"
    run = RunRecord(
        id=f"{day.replace('-', '')}-{clock}-01_bench-{number:06x}",
        notebook="01_bench",
        title="How fast does the model answer?",
        status="finished",
        exit_code=0,
        verdict="pass",
        finding=f"ONNX Runtime answers one image in {1 + number / 1000:.3f} ms, in time.",
        problem=None,
        started=f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z",
        ended=f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z",
        duration_s=1.0,
        parameters={"batch": "1,2"},
        changed_parameters=(),
        notebook_sha256="ef" * 32,
        lineage=make_lineage(),
        key_figures=(
            Scrap(name="p50", value=1.25, unit="ms", better="lower", label="Median, batch 1"),
        ),
    )
    return run.model_copy(update=changes)


def write_run(root: Path, run: RunRecord, bench: BenchRecord | None = None) -> Path:
    """Write a run's folder as the runner lays it out; return the folder."""
    day, _, rest = run.id.partition("-")
    folder = root / f"{day[:4]}-{day[4:6]}-{day[6:]}" / rest
    folder.mkdir(parents=True)
    (folder / run.report_name).write_text(f"<html lang=en><title>{run.title}</title></html>")
    if bench is not None:
        name = "bench_20261123-150000.json"
        bench.write(folder / name)
        run = run.model_copy(update={"record": name})
    run.model_copy(update={"files": list_run_files(folder)}).write(folder / RUN_FILE)
    return folder


def jitter(median: float, spread: float, count: int, seed: int) -> tuple[float, ...]:
    """Return `count` values around a median with a relative spread."""
    rng = random.Random(seed)
    return tuple(median * (1 + rng.gauss(0, spread)) for _ in range(count))
