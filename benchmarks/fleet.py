"""A roll over 200 hosts, rehearsed: is every fault found, the budget kept, and how long is it?

The services are light: they answer the contract from one process and hold no model, and hosts are
reached by Ansible's local connection, so that Ansible's own work is what is timed. Then hosts whose
switch takes a while: fewer and more of them in as many batches, and the same in fewer batches.

    python benchmarks/fleet.py [--hosts 200] [--switch-s 3] [--short]

`--short` rehearses over 40 hosts and leaves the batches out.

Exit code 3 when a bound is missed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fleet.light import Fault, LightFleet, open_light, roll_command
from tests.fleet.playing import environment

FEW = 40
CASES = (
    (20, 11, "10%"),
    (40, 11, "10%"),
    (40, 3, "50%"),
)  # hosts, batches, as the playbook is told
LIMIT_S = 400.0
# Twice the hosts in as many batches take less than this, times; the hosts' own processes share the
# processors of the controller here, as they do nowhere else.
MORE_HOSTS_MAX = 1.6


@dataclass(frozen=True)
class Roll:
    """How a roll ended and how long it took."""

    code: int
    said: str
    wall_s: float


def roll(fleet: LightFleet, *words: str) -> Roll:
    """Roll the new model over all hosts."""
    started = time.monotonic()
    answer = subprocess.run(
        roll_command(fleet, "--forks", "20", *words),
        env=environment(fleet.folder),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    wall_s = time.monotonic() - started
    print(f"{len(fleet.names)} hosts, {' '.join(words)}: {wall_s:.0f} s", file=sys.stderr)
    return Roll(answer.returncode, " ".join(answer.stdout.split()), wall_s)


def choose_faults(fleet: LightFleet, each: int) -> dict[str, Fault]:
    """Choose hosts with each kind of fault, never the first, always the same."""
    kinds = get_args(Fault)
    chosen = random.Random(7).sample(fleet.names[1:], each * len(kinds))
    return {name: kinds[index % len(kinds)] for index, name in enumerate(chosen)}


@contextmanager
def open_many(count: int) -> Iterator[LightFleet]:
    """Serve so many light services from a folder that goes with them."""
    with (
        tempfile.TemporaryDirectory(prefix="pillops-fleet-") as name,
        open_light(Path(name), count) as fleet,
    ):
        yield fleet


def rehearse(count: int) -> list[Row]:
    """Roll over `count` hosts with as many faults as may be, then with fewer allowed."""
    with open_many(count) as fleet:
        faults = choose_faults(fleet, 2)
        fleet.put_back(faults)
        done = roll(fleet, "-e", f"max_failed={len(faults)}")
        named = [one for one in faults if f"{one} was not switched: " in done.said]
        healthy = set(fleet.names) - set(faults)
        rows = [
            Row(
                f"{count} hosts in 11 batches",
                f"{done.wall_s:.0f} s",
                f"<= {LIMIT_S:g} s",
                True,
            ),
            Row(
                f"{len(faults)} faulty hosts, as many may fail",
                f"{len(named)} named, {len(fleet.served_new)} switched, exit code {done.code}",
                f"{len(faults)} named, {len(healthy)} switched, exit code 2",
                len(named) == len(faults) and fleet.served_new == healthy and done.code == 2,
            ),
        ]
        fleet.put_back(faults)
        spare = sum(kind == "silent" for kind in faults.values())
        done = roll(fleet, "-e", f"max_failed={spare}")
        exposed, batch = len(fleet.first_switched), max(1, count // 10)
        before = next(
            index for index, one in enumerate(fleet.names) if faults.get(one, "silent") != "silent"
        )
        bound = 1 + ((before - 1) // batch + 1) * batch
        rows.append(
            Row(
                f"the same faults, {spare} may fail",
                f"{exposed} exposed, {len(fleet.served_new)} left on the new model, "
                f"{done.wall_s:.0f} s",
                f"<= {bound} exposed, 0 left",
                exposed <= bound and not fleet.served_new and done.code == 2,
            )
        )
    return rows


def time_batches(switch_s: float) -> list[Row]:
    """Time rolls over fewer and more hosts, in more and fewer batches."""
    walls, rows = [], []
    for count, batches, batch in CASES:
        with open_many(count) as fleet:
            fleet.switch_s = switch_s
            done = roll(fleet, "-e", f"batch={batch}")
            is_done = done.code == 0 and fleet.served_new == set(fleet.names)
        walls.append(done.wall_s)
        what = f"{count} hosts in {batches} batches, a switch takes {switch_s:g} s"
        rows.append(Row(what, f"{done.wall_s:.0f} s", "all switched", is_done))
    more_hosts = walls[1] / walls[0]
    a_batch = (walls[1] - walls[2]) / (CASES[1][1] - CASES[2][1])
    bound = f"<= {MORE_HOSTS_MAX:g}"
    held = more_hosts <= MORE_HOSTS_MAX
    rows.append(Row("twice the hosts, as many batches", f"{more_hosts:.2f} times", bound, held))
    least = switch_s / 2
    rows.append(Row("a batch more", f"{a_batch:.1f} s", f">= {least:g} s", a_batch >= least))
    return rows


def main() -> int:
    """Rehearse and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=200, help="in the rehearsal")
    parser.add_argument("--switch-s", type=float, default=3.0, help="that a /reload takes")
    parser.add_argument("--short", action="store_true", help="a rehearsal over 40 hosts alone")
    arguments = parser.parse_args()
    rows = rehearse(FEW if arguments.short else arguments.hosts)
    rows += [] if arguments.short else time_batches(arguments.switch_s)
    return show_rows("a roll over many hosts", rows)


if __name__ == "__main__":
    sys.exit(main())
