"""Walk at random through export, link, pin, reload, rollback, maintenance and restart of a service
with two kinds of models, up, down, mute, lying or without one of its models.

    python benchmarks/soak_kinds.py [--sequences 500] [--steps 12] [--seed N]

Exit code 3 when a model that is needed was deleted, one was switched to where it does not belong,
or a command did otherwise than it should.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.two_kinds import Seen, choose_steps, walk

SHOWN = 5


def main() -> int:
    """Walk, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
        os.environ["PILLOPS_LOCK_DIR"] = str(Path(name) / "locks")
        for number in range(arguments.sequences):
            rng = random.Random(f"{arguments.seed}-{number}")
            before = len(seen.faults)
            walk(Path(name) / str(number), choose_steps(rng, arguments.steps), seen)
            for fault in seen.faults[before:][:SHOWN]:
                print(f"sequence {number}: {fault}", file=sys.stderr)
    rows = [
        Row(what, f"{len(faults):,} of {count}", "0", not faults)
        for what, faults, count in (
            ("wrong switches", seen.wrong_switches, f"{seen.switches:,} switches"),
            ("models wrongly deleted", seen.wrong_deletions, f"{seen.deleted:,} deleted"),
            ("commands that did otherwise", seen.broken, f"{seen.steps.total():,} steps"),
        )
    ]
    walked = f"{arguments.sequences:,} sequences of {arguments.steps} steps"
    return show_rows(f"two kinds of models, {walked}, seed {arguments.seed}", rows)


if __name__ == "__main__":
    sys.exit(main())
