"""A service under floods without a key, of each kind: does it answer, what does it take and log?

A small model is served by a process that may open 1,024 files. Another process holds connections
that send nothing, drip, vanish, or pour into one part of HTTP's grammar, and opens new ones; this
one asks for `/health` and an authorized `/predict` all the while, each on a connection of its own.

    python benchmarks/soak_flood.py [--held 1000] [--per-s 200] [--tries 100] [--descriptors 1024]
                                    [KIND ...]

Exit code 3 when a bound is missed. Run it alone: attacker and service share the processors.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.serving.conftest import make_place
from tests.serving.flood import KINDS
from tests.serving.flooding import Outcome, start_target

PAUSE_S = 0.05
IN_TIME_MIN = 0.99
GROWTH_MAX = 1.5
LOG_MAX_BYTES = 1 << 20
LEFT_MAX = 1.1  # memory after the flood against before it, beside what the allocator keeps
LEFT_BYTES = 16 << 20
BOUND = (
    f">= {IN_TIME_MIN:.0%} in 1 s, memory <= {GROWTH_MAX:g} x, log <= 1 MiB, nothing left behind"
)


def soak(kind: str, arguments: argparse.Namespace) -> Row:
    """Flood a fresh service with one kind; return the row of the table."""
    with tempfile.TemporaryDirectory(prefix="pillops-flood-") as name:
        place = make_place(Path(name))
        with start_target(place, arguments.descriptors) as target:
            outcome = target.flood(
                kind,
                tries=arguments.tries,
                held=arguments.held,
                per_s=arguments.per_s,
                pause_s=PAUSE_S,
            )
    return Row(kind, describe(outcome), "", holds(outcome))


def describe(outcome: Outcome) -> str:
    """Return what came of a flood as one line."""
    before, after = outcome.before, outcome.after
    opened, lost, most, _ = outcome.attacker.split()
    return (
        f"{outcome.in_time:.0%} in 1 s, slowest {outcome.slowest_s:.2f} s; memory x "
        f"{outcome.growth:.2f}, {after.memory_bytes / before.memory_bytes:.2f} after; log "
        f"{outcome.log_bytes / 1024:.1f} KiB; {after.descriptors - before.descriptors:+d} files, "
        f"{after.tasks - before.tasks:+d} tasks; {opened} opened, {most} at once, {lost} cut"
    )


def holds(outcome: Outcome) -> bool:
    """Whether every bound was kept."""
    before, after = outcome.before, outcome.after
    left = after.memory_bytes <= LEFT_MAX * before.memory_bytes + LEFT_BYTES
    return (
        outcome.in_time >= IN_TIME_MIN
        and outcome.growth <= GROWTH_MAX
        and outcome.log_bytes <= LOG_MAX_BYTES
        and left
        and after.descriptors <= before.descriptors
        and after.tasks <= before.tasks
    )


def main() -> int:
    """Flood with every kind and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held", type=int, default=1000, help="connections at once")
    parser.add_argument("--per-s", type=float, default=200, help="new ones a second")
    parser.add_argument("--tries", type=int, default=100, help="of /health and of /predict")
    parser.add_argument("--descriptors", type=int, default=1024, help="that the service may have")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="all by default")
    arguments = parser.parse_args()
    unknown = set(arguments.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    rows = [soak(kind, arguments) for kind in arguments.kinds or KINDS]
    return show_rows(f"floods: {BOUND}", rows)


if __name__ == "__main__":
    sys.exit(main())
