"""What the checklist costs, and how often it cries wolf.

The digest of a log of 1 GB: its peak memory, its seconds beside those of `grep`, on a quiet log and
on one full of errors. Ten runs on a healthy copy of the demo experiment with a real service must be
quiet; the same with a benchmark that is 10 % slower must not be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Row, show_rows

from opslib.core.config import Config, load_config
from opslib.core.formatting import stamp, utc_now
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.ops.checklist.run import run_checklist
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.rota import prove_by_rota
from opslib.serving.keys import rotate_key
from opslib.serving.staging import start_service
from opslib.upkeep.maintenance import run_maintenance

MIB = 1 << 20
PEAK_MB = 100
RUNS = 10
ORIGIN = "https://pillsnap.co.kr"
DIGEST = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from opslib.ops.checklist.log_digest import LogDigest
started = time.perf_counter()
digest = LogDigest("API", datetime(2000, 1, 1, tzinfo=UTC))
digest.add_file(Path(sys.argv[1]))
count = sum(group.count for group in digest.groups())
took = time.perf_counter() - started
status = Path("/proc/self/status").read_text()
peak_kib = next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM"))
print(count, took, peak_kib)
"""


def write_log(path: Path, size_mb: int, *, loud: bool) -> int:
    """Write a log as the service does; return how many of its lines are errors."""
    now = utc_now().isoformat(timespec="milliseconds")
    good = {"at_utc": now, "level": "INFO", "message": "CORS preflight allowed", "origin": ORIGIN}
    bad = {"at_utc": now, "level": "ERROR", "message": "request 8f3a2c91 failed after 12.5 ms"}
    each = 1 if loud else 20_000
    part = (json.dumps(good) + "\n").encode() * (each - 1) + (json.dumps(bad) + "\n").encode()
    part *= max(1, MIB // len(part))
    errors = 0
    with path.open("wb") as file:
        while file.tell() < size_mb * MIB:
            file.write(part)
            errors += part.count(b'"ERROR"')
    return errors


def measure_digest(folder: Path, size_mb: int) -> list[Row]:
    """Digest a quiet and a loud log, each in a process of its own."""
    rows = []
    for loud in (False, True):
        path = folder / "api.err"
        errors = write_log(path, size_mb if not loud else max(1, size_mb // 8), loud=loud)
        megabytes = path.stat().st_size / 1e6
        started = time.perf_counter()
        subprocess.run(["grep", "-c", "ERROR", path], capture_output=True, check=True)
        grep_s = time.perf_counter() - started
        answer = subprocess.run(
            [sys.executable, "-c", DIGEST, path], capture_output=True, text=True, check=True
        )
        count, took, peak_kib = answer.stdout.split()
        peak_mb = int(peak_kib) * 1024 / 1e6
        name = f"log of {megabytes:,.0f} MB, {'every line' if loud else 'few lines'} an error"
        rows.append(
            Row(f"{name}: peak memory, MB", f"{peak_mb:.0f}", f"≤ {PEAK_MB}", peak_mb <= PEAK_MB)
        )
        rows.append(Row(f"{name}: errors", count, f"{errors:,}", int(count) == errors))
        seconds = f"{float(took):.1f} ({float(took) / max(grep_s, 1e-9):.1f} × grep)"
        rows.append(Row(f"{name}: seconds", seconds, "reported", True))
        path.unlink()
    return rows


@contextmanager
def healthy_operation(demo: Config) -> Iterator[Config]:
    """A copy of the demo experiment with all that a healthy operation has, and a service."""
    with tempfile.TemporaryDirectory(prefix="pillops-checklist-") as name:
        folder = Path(name)
        shutil.copytree(demo.exp_dir, folder / "exp", symlinks=True)
        (folder / "exp" / ".demo.json").unlink(missing_ok=True)
        for path in (folder / "exp" / "reports").glob("*_*.json"):
            path.unlink()
        (folder / ".env.example").write_text("API_KEY=\n")
        path = folder / "config.yaml"
        text = f"paths: {{exp_dir: exp, data_root: '{demo.data_root}'}}\n"
        text += "maintenance: {disks: [/]}\nchecklist: {disk_attention_pct: 98, "
        text += "disk_failed_pct: 99}\n"
        path.write_text(text)
        env_file = folder / ".env"
        rotate_key(env_file)
        with env_file.open("a") as file:
            file.write(f"CORS_ALLOW_ORIGINS={ORIGIN}\n")
        told = dict(line.split("=", 1) for line in env_file.read_text().splitlines()[1:])
        with start_service(path, variables={**told, "RATE_LIMIT_PER_MIN": "100000"}) as service:
            health = (
                f"{{internal_url: '{service.url}/health', external_url: '{service.url}/health'}}"
            )
            path.write_text(f"{text}client: {{url: '{service.url}'}}\nhealth: {health}\n")
            config = load_config(path, {})
            run_maintenance(config, show=lambda _line: None)
            build_release(config, ReleaseRequest())
            prove_by_rota(config)
            line = f"{utc_now():%Y-%m-%dT%H:%M:%SZ} INF Registered tunnel connection\n"
            (config.logs_dir / "cloudflared.log").write_text(line)
            yield config


def slower(record: BenchRecord, factor: float) -> BenchRecord:
    """The record with every call longer by a factor, made now."""

    def stretch(row: BenchRow) -> BenchRow:
        raw = tuple(tuple(ms * factor for ms in block) for block in row.raw_ms)
        return row.model_copy(update={"raw_ms": raw})

    lineage = record.lineage.model_copy(update={"created_at_utc": utc_now().isoformat()})
    rows = tuple(stretch(row) for row in record.rows if row.engine == "onnx")
    return record.model_copy(update={"rows": rows, "lineage": lineage})


def measure_quiet(demo: Config) -> list[Row]:
    """Count quiet runs on a healthy operation, and see a regression noticed."""
    measured = sorted(demo.records_dir.glob("bench_*.json"))
    with healthy_operation(demo) as config:
        if measured:
            base = BenchRecord.read(measured[-1])
            slower(base, 1.0).write(config.records_dir / "bench_20000101-000000.json")
            slower(base, 1.0).write(config.records_dir / f"bench_{stamp()}.json")
        quiet, loud, took = 0, "", []
        for _ in range(RUNS):
            record = run_checklist(config, "monthly")
            took.append(record.wall_s)
            quiet += record.verdict == "pass"
            loud = loud or ("" if record.verdict == "pass" else f": {record.finding}")
        rows = [
            Row(
                "healthy monthly checklists that are quiet",
                f"{quiet}{loud}",
                f"{RUNS}",
                quiet == RUNS,
            ),
            Row("seconds of a monthly checklist, worst", f"{max(took):.1f}", "reported", True),
        ]
        if measured:
            slower(base, 1.1).write(config.records_dir / "bench_99991231-000000.json")
            item = run_checklist(config, "monthly").item("benchmark")
            state = item.state if item else "missing"
            bound = "attention or failed"
            rows.append(
                Row("a benchmark slower by 10 %", state, bound, state in ("attention", "failed"))
            )
        return rows


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ.pop("API_KEY", None)
    demo = load_config()
    with tempfile.TemporaryDirectory(prefix="pillops-log-") as name:
        rows = measure_digest(Path(name), arguments.size_mb)
    rows += measure_quiet(demo)
    return show_rows("the checklist", rows)


if __name__ == "__main__":
    sys.exit(main())
