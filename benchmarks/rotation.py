"""What the Windows script's rotation costs against `gzip -6` of the same file, in the same run.

Run by PowerShell on Linux (`pwsh` on the PATH) while a program appends to the log: copied, cut,
compressed, read back. The engine's start is not counted.

    python benchmarks/rotation.py [--megabytes 100] [--rounds 5]

Exit code 3 when a bound is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.upkeep.windows_log import open_log

MAX_RATIO = 0.8
MAX_MIB = 130


def main() -> int:
    """Measure in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if shutil.which("pwsh") is None:
        row = Row("rotation by PowerShell", "pwsh is not on the PATH", f"{MAX_RATIO}", None)
        return show_rows("The Windows rotation", [row])
    ratios, sizes, peaks = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="pillops-rotation-") as name:
        packed = Path(name) / "packed.gz"
        with open_log(Path(name)) as log:
            for _ in range(arguments.rounds):
                log.fill(arguments.megabytes)
                started = time.perf_counter()
                with log.log.open("rb") as source, packed.open("wb") as target:
                    quiet = subprocess.DEVNULL  # the log grows meanwhile, which gzip warns of
                    command = ["gzip", "-6", "-c"]
                    subprocess.run(command, stdin=source, stdout=target, stderr=quiet, check=True)
                gzip_s = time.perf_counter() - started
                run = log.rotate(pause=False)
                ratios.append(run["duration_s"] / gzip_s)
                peaks.append(run["peak_kib"] / 1024)
                newest = max(log.folder.glob("*.gz"), key=lambda path: path.stat().st_mtime_ns)
                sizes.append(newest.stat().st_size / packed.stat().st_size)
    ratio, peak = statistics.median(ratios), max(peaks)
    rows = [
        Row("time, of gzip -6", f"{ratio:.2f} x", f"at most {MAX_RATIO}", ratio <= MAX_RATIO),
        Row("memory", f"{peak:.0f} MiB", f"at most {MAX_MIB}", peak <= MAX_MIB),
        Row("size, of gzip -6", f"{statistics.median(sizes):.2f} x", "told", True),
    ]
    return show_rows(f"The Windows rotation of {arguments.megabytes} MiB", rows)


if __name__ == "__main__":
    sys.exit(main())
