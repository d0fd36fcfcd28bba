"""Kill the Windows script's rotation of a large log at random moments while a program writes it.

Run by PowerShell on Linux (`pwsh` on the PATH): the writer appends and shares reading and writing,
as cloudflared does; the pause of its process is a signal here.

    python benchmarks/soak_rotation.py [--kills 10] [--megabytes 100] [--seed N]

Exit code 3 when a line is lost or archived twice.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.upkeep.windows_log import open_log


def main() -> int:
    """Kill, finish, count and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    if shutil.which("pwsh") is None:
        print("soak_rotation: pwsh is not on the PATH; install PowerShell 7 to run it")
        return 0
    rng, done = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name, open_log(Path(name)) as log:
        log.fill(arguments.megabytes)
        whole_s = float(log.rotate()["duration_s"])
        for _ in range(arguments.kills):
            log.fill(arguments.megabytes)
            run = log.start_rotation()
            try:
                run.wait(rng.uniform(0, whole_s))
            except subprocess.TimeoutExpired:
                done += 1
            log.kill(run)
        codes = [log.rotate()["code"] for _ in range(2)]
        log.end()
        lost, twice = log.count()
    rows = [
        Row(
            "runs killed before their end", str(done), "at least half", done * 2 >= arguments.kills
        ),
        Row("exit codes of the two runs after", str(codes), "0", codes == [0, 0]),
        Row("lines lost", str(lost), "0", lost == 0),
        Row("lines archived twice", str(twice), "0", twice == 0),
    ]
    return show_rows(f"The Windows rotation, killed (seed {arguments.seed})", rows)


if __name__ == "__main__":
    sys.exit(main())
