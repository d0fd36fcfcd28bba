"""What deleting costs when there is much to delete: old reports against an earlier revision, and
whether each duty of the nightly job stays linear.

The same thousands of report folders are deleted by this code, whole, and by an earlier revision in
a worktree beside it, for its first minute. Then each duty gets a number of things to delete, twice
and four times as many.

    python benchmarks/prune.py [--reports 9000] [--base b73717e] [--base-seconds 60]
                               [--smallest 2500] [DUTY ...]

`--smallest 25000` tries 100,000 of each; with duties named, only these are tried. Exit code 3 when
a bound is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from figures import Row, show_rows
from upkeep import make_experiment

ROOT = Path(__file__).resolve().parents[1]
BASE = "b73717e"
MIN_RATIO = 80
# Four times as many things may take so many times as long: noise, and a folder's own index.
MAX_GROWTH = 4 * 1.5
DAY_S = 86_400
SCRIPT = """
import sys, time
from pathlib import Path
import opslib
from opslib.core.config import load_config
from opslib.upkeep.maintenance import plan_maintenance
if not Path(opslib.__file__).is_relative_to(sys.argv[1]):
    sys.exit(f"{opslib.__file__}: not of {sys.argv[1]}")
config, limit_s = load_config(sys.argv[2], {}), float(sys.argv[3])
begun = time.monotonic()
plan = plan_maintenance(config).plan
planned = done = 0
started = time.monotonic()
for step in plan.actions:
    step.run()
    done += 1
    if time.monotonic() - started > limit_s:
        break
print(len(plan.actions), done, started - begun, time.monotonic() - started)
"""
Fill = Callable[[Path, int], None]


def old_file(path: Path, number: int, data: bytes = b"x", days: int = 400) -> None:
    """Write a file dated long ago, each an instant after the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = time.time() - days * DAY_S + number
    os.utime(path, (moment, moment))


def fill_reports(home: Path, count: int) -> None:
    """Write folders of old runs, 25 a day."""
    newest = datetime.now(UTC) - timedelta(days=400)
    for number in range(count):
        day = newest - timedelta(days=number // 25)
        folder = home / "reports" / f"{day:%Y-%m-%d}" / f"{number % 25:06d}-01_bench-{number:06x}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"status": "finished"}')
        (folder / "01_bench.html").write_bytes(b"<html>" * 200)


def fill_files(name: str, data: bytes = b"x", days: int = 400) -> Fill:
    """Return what writes files that are called so, below the experiment."""

    def fill(home: Path, count: int) -> None:
        for number in range(count):
            old_file(home / "exp" / name.format(number), number, data, days)

    return fill


def fill_daily(home: Path, count: int) -> None:
    """Write disk reports, one a day."""
    first = datetime(1700, 1, 1, tzinfo=UTC)
    for number in range(count):
        name = f"disk_{first + timedelta(days=number):%Y%m%d}.txt"
        old_file(home / "exp" / "reports" / name, number)


def fill_leftovers(home: Path, count: int) -> None:
    """Write what writers that died left."""
    for number in range(count):
        old_file(home / "exp" / "export" / f".m.onnx.pillops-{number:016x}.tmp", number)


def fill_releases(home: Path, count: int) -> None:
    """Write archives of releases with their checksums; nothing in them is read."""
    folder = home / "exp" / "releases"
    first = datetime(2024, 1, 1, tzinfo=UTC)
    for number in range(count):
        name = f"release-{first + timedelta(minutes=number):%Y%m%d-%H%M%S}-abcdef0.tar.gz"
        data = name.encode()
        old_file(folder / name, number, data)
        line = f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        old_file(folder / f"{name}.sha256", number, line.encode())


def fill_restored(home: Path, count: int) -> None:
    """Write folders of releases that were restored long ago."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    for number in range(count):
        name = f"release-{first + timedelta(minutes=number):%Y%m%d-%H%M%S}-abcdef0"
        folder = home / "exp" / "releases" / "restored" / name
        old_file(folder / "export" / "m.onnx", number)
        os.utime(folder, (0, time.time() - 400 * DAY_S))


DUTIES: dict[str, Fill] = {
    "models": fill_files("export/model-{:06d}.onnx"),
    "quantized": fill_files("quantized/gone/{}.int8.onnx"),
    "restored releases": fill_restored,
    "reports": fill_reports,
    "daily records": fill_daily,
    "log archive": fill_files("logs/archive/{}.out.gz"),
    "logs, compressed": fill_files("logs/{}.out", b"line\n" * 50, days=10),
    "checkpoints": fill_files("checkpoints/last_{}.pt"),
    "leftovers": fill_leftovers,
    "releases": fill_releases,
}


def run_code(code: Path, config: Path, limit_s: float) -> tuple[int, int, float, float]:
    """Let the code of a checkout plan and delete; return steps planned and done, and the seconds
    of planning and of doing."""
    os.sync()  # a file that was never written to disk is deleted for less than one that was
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PILLSNAP_")}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(code), str(config), str(limit_s)],
        cwd=code,
        env=environment | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr.strip().splitlines()[-1])
    planned, done, plan_s, work_s = answer.stdout.split()
    return int(planned), int(done), float(plan_s), float(work_s)


@contextmanager
def open_revision(revision: str, folder: Path) -> Iterator[Path | None]:
    """Yield a worktree of an earlier revision, or None where this is no checkout that has it."""
    place = folder / "revision"
    git = ["git", "-C", str(ROOT), "worktree"]
    made = subprocess.run([*git, "add", "--detach", str(place), revision], capture_output=True)
    try:
        yield place if made.returncode == 0 else None
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], capture_output=True)


def measure_reports(count: int, base: str, base_s: float) -> list[Row]:
    """Delete the same folders with this code and with an earlier revision."""
    what = f"delete {count:,} report folders, this code / {base}"
    bound = f">= {MIN_RATIO} x"
    with (
        tempfile.TemporaryDirectory(prefix="pillops-prune-") as name,
        open_revision(base, Path(name)) as revision,
    ):
        if revision is None:
            return [Row(what, f"no revision {base} here", bound, None)]
        rates = []
        for code, limit_s in ((ROOT, 3600.0), (revision, base_s)):
            home = Path(name) / code.name
            config = make_experiment(home)
            fill_reports(home, count)
            _, done, _, work_s = run_code(code, config, limit_s)
            rates.append(done / work_s)
    ratio = rates[0] / rates[1]
    told = f"{ratio:.0f} x ({rates[0]:,.0f} against {rates[1]:.1f} a second)"
    return [Row(what, told, bound, ratio >= MIN_RATIO)]


def measure_growth(smallest: int, duties: Sequence[str]) -> list[Row]:
    """Give each of these duties so many things, twice and four times as many."""
    rows = []
    for duty in duties:
        fill, took = DUTIES[duty], list[float]()
        for count in (smallest, 2 * smallest, 4 * smallest):
            with tempfile.TemporaryDirectory(prefix="pillops-prune-") as name:
                config = make_experiment(Path(name) / "home")
                fill(config.parent, count)
                planned, done, plan_s, work_s = run_code(ROOT, config, 3600.0)
                if done != planned or done < count - 10:
                    raise RuntimeError(f"{duty}: {done} of {count} were deleted")
                took.append(plan_s + work_s)
        growth = took[-1] / took[0]
        told = f"{growth:.1f} x ({json.dumps([round(one, 1) for one in took])} s)"
        what = f"{duty}: {4 * smallest:,} against {smallest:,}"
        rows.append(Row(what, told, f"<= {MAX_GROWTH:g} x", growth <= MAX_GROWTH))
    return rows


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=9000)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--base-seconds", type=float, default=60.0)
    parser.add_argument("--smallest", type=int, default=2500)
    parser.add_argument("duties", nargs="*", metavar="DUTY", help="all by default")
    arguments = parser.parse_args()
    unknown = set(arguments.duties) - set(DUTIES)
    if unknown:
        parser.error(f"no such duty: {', '.join(sorted(unknown))}; there are {', '.join(DUTIES)}")
    rows = []
    if not arguments.duties:
        rows = measure_reports(arguments.reports, arguments.base, arguments.base_seconds)
    rows += measure_growth(arguments.smallest, arguments.duties or list(DUTIES))
    return show_rows("prune", rows)


if __name__ == "__main__":
    sys.exit(main())
