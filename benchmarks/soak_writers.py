"""Race pairs of writers on everything that is read, changed and written, and kill writers of a key.

The crontab is a real one in a mount namespace of its own where that can be had (root), or else a
stand-in.

    python benchmarks/soak_writers.py [--pairs 1000] [--kills 200] [--seed N]

Exit code 3 when an update is lost, or a killed writer leaves a key that nothing removes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.racing import KINDS, kill_rotations, make_ground, start_pair
from tests.upkeep.crontabs import make_host

SPOOL = "/var/spool/cron/crontabs"
MARK = "PILLOPS_SOAK_ALONE"
ALONE = f'mount -t tmpfs none {SPOOL} && chmod 1730 {SPOOL} && exec "$@"'


def go_alone() -> bool:
    """Return whether this process has a crontab of its own; begin anew in a mount namespace to
    get one where that works."""
    if MARK in os.environ:
        return True
    inside = ["unshare", "--mount", "sh", "-c", ALONE, "sh"]
    able = os.geteuid() == 0 and Path(SPOOL).is_dir()
    if able and subprocess.run([*inside, "crontab", "-"], input=b"", check=False).returncode == 0:
        os.environ[MARK] = "1"
        os.execvp(inside[0], [*inside, sys.executable, *sys.argv])
    return False


@contextmanager
def ground(*, alone: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a folder to race on and the environment of the writers."""
    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
        folder = make_ground(Path(name) / "ground")
        environment = dict(os.environ)
        if not alone:
            environment = make_host(Path(name) / "host").environment
        yield folder, environment | {"PILLOPS_LOCK_DIR": str(Path(name) / "locks")}


def main() -> int:
    """Race, kill, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    alone = go_alone()
    rows = []
    with (
        ground(alone=alone) as (folder, environment),
        start_pair(folder, environment) as pair,
    ):
        for kind in KINDS:
            raced = pair.race(kind, arguments.pairs)
            what = f"{kind} (stand-in)" if kind == "crontab" and not alone else kind
            value = f"{len(raced.lost)} lost of {raced.pairs:,} pairs of writers"
            rows.append(Row(what, value, "0 lost", not raced.lost))
    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
        killed = kill_rotations(Path(name), arguments.kills, arguments.seed)
    value = f"{len(killed.unswept)} unswept; {killed.leftovers} of {killed.kills} kills left a file"
    rows.append(Row("key rotation, kill -9", value, "0 unswept", not killed.unswept))
    return show_rows(f"writers at the same moment, seed {arguments.seed}", rows)


if __name__ == "__main__":
    sys.exit(main())
