"""Desks of several hosts, made of one real benchmark that a document cites.

There is one host here: the hosts' names, the dates and what the figures are multiplied by are
invented, everything else of each record is as it was measured.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from opslib.core.files import sha256_bytes
from opslib.core.formatting import utc_now
from opslib.core.host import HostFacts
from opslib.core.lineage import Lineage
from opslib.core.served import ServedNote
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.runs.run_record import RunRecord, utc_text
from tests.runs.makers import make_run, write_run

ROOT = Path(__file__).resolve().parents[3]
MEASURED = BenchRecord.read(sorted(ROOT.glob("reports/cited/*-01_bench-*/bench_*.json"))[-1])
OLD = "model-20261101-080000-aaaaaaa.onnx"
NEW = "model-20261120-080000-bbbbbbb.onnx"
NEWEST = "model-20261128-080000-ccccccc.onnx"
_numbers = iter(range(1, 100_000))


def note(name: str = NEW, kind: str = "model") -> ServedNote:
    """Return what a run tells of the model in service, with a digest that goes by the name."""
    return ServedNote(kind=kind, name=name, sha256=sha256_bytes(name.encode()), version_tag=name)


def on_host(name: str | None, **facts: Any) -> Lineage:
    """Return the lineage of the real record on a host of this name, of other hardware if given."""
    host: HostFacts = MEASURED.lineage.host.model_copy(update={"name": name, **facts})
    return MEASURED.lineage.model_copy(update={"host": host, "host_fingerprint": host.fingerprint})


def multiplied(row: BenchRow, whole: float, ratio: float) -> BenchRow:
    """Return a row that took `whole` times as long, its ratio to the reference `ratio` times."""
    latency, relative = row.latency_ms, row.relative
    if latency is None:
        return row
    changes: dict[str, Any] = {
        "latency_ms": latency.model_copy(
            update={
                "p50": latency.p50 * whole,
                "ci95": latency.ci95 and tuple(end * whole for end in latency.ci95),
            }
        ),
        "raw_ms": tuple(tuple(one * whole for one in block) for block in row.raw_ms),
    }
    if relative is not None:
        changes["relative"] = relative.model_copy(
            update={
                "ratio": relative.ratio * ratio,
                "ci95": tuple(end * ratio for end in relative.ci95),
                "log_ratios": tuple(one + math.log(ratio) for one in relative.log_ratios),
                "reference_ms": relative.reference_ms * whole / ratio,
            }
        )
    return row.model_copy(update=changes)


def add_bench(
    root: Path,
    name: str | None,
    *,
    days_ago: float = 0.1,
    whole: float = 1.0,
    ratio: float = 1.0,
    served: ServedNote | None = None,
    lineage: Lineage | None = None,
    **changes: Any,
) -> Path:
    """Write a run of the benchmark as that host would leave it; return its folder."""
    lineage = lineage or on_host(name)
    rows = tuple(multiplied(row, whole, ratio) for row in MEASURED.rows)
    bench = MEASURED.model_copy(update={"rows": rows, "lineage": lineage, **changes})
    return write_run(root, _run(days_ago, lineage, served), bench)


def add_run(
    root: Path, name: str | None, *, days_ago: float = 0.1, served: ServedNote | None = None
) -> Path:
    """Write a run without a record of an operation; return its folder."""
    return write_run(root, _run(days_ago, on_host(name), served, notebook="04_release"))


def add_benches(
    root: Path,
    name: str | None,
    *,
    runs: int = 5,
    whole: float = 1.0,
    ratio: float = 1.0,
    noise: float = 0.02,
    ratio_noise: float | None = None,
    last_days_ago: float = 0.1,
    seed: int | None = None,
    **given: Any,
) -> list[Path]:
    """Write so many daily runs of a host whose level is `whole` times the real one's, that differ
    from run to run by `noise`, and whose ratio to the reference by half of it, or as is given."""
    chance = random.Random(seed if seed is not None else str(name))
    return [
        add_bench(
            root,
            name,
            days_ago=last_days_ago + back,
            whole=whole * math.exp(chance.gauss(0, noise)),
            ratio=ratio * math.exp(chance.gauss(0, ratio_noise or noise / 2)),
            **given,
        )
        for back in range(runs)
    ]


def _run(
    days_ago: float, lineage: Lineage, served: ServedNote | None, notebook: str = "01_bench"
) -> RunRecord:
    started: datetime = utc_now() - timedelta(days=days_ago)
    number = next(_numbers)
    return make_run(
        number,
        id=f"{started:%Y%m%d-%H%M%S}-{notebook}-{number:06x}",
        notebook=notebook,
        started=utc_text(started),
        ended=utc_text(started),
        lineage=lineage,
        served=served,
    )
