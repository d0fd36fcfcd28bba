"""Random sequences of all that makes, uses and deletes, with deaths, full disks and wrong clocks.

In one process on a file layer that fails (`tests/deletions/`), then one death at each operation of
each deleting job, then real processes killed beside a real service that shares their models.

    python benchmarks/soak_deletions.py [--sequences 2000] [--kills 40] [--seed N] [--processes 2]

Exit code 3 when something needed was deleted, or something killed could not be finished.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STEPS = 20


def run_sequences(count: int, seed: int) -> tuple[Counter[str], str]:
    """Run sequences; return what befell them, and the story of the first that failed."""
    from tests.deletions.machine import run_sequences as run
    from tests.deletions.machine import tally

    try:
        run(count, STEPS, seed=seed)
    except BaseException as error:  # whatever it is, it is the finding
        notes = "\n".join(getattr(error, "__notes__", ()))
        return tally, f"{''.join(traceback.format_exception(error)[-3:])}\n{notes}"
    return tally, ""


def soak_sequences(count: int, seed: int, processes: int) -> list[Row]:
    """Run sequences in several processes; return the rows of the table."""
    total: Counter[str] = Counter()
    stories = []
    with ProcessPoolExecutor(processes) as pool:
        share = -(-count // processes)
        seeds = [seed + number for number in range(processes)]
        for tally, story in pool.map(run_sequences, [share] * processes, seeds):
            total.update(tally)
            stories += [story] if story else []
    for story in stories:
        sys.stderr.write(f"{story}\n")
    wanted = total["sequences"] >= count
    done = f"{total['sequences']:,} sequences, {total['operations']:,} file operations"
    deaths = ", ".join(
        f"{number} in {name.removeprefix('deaths in ')}"
        for name, number in sorted(total.items())
        if name.startswith("deaths in ")
    )
    return [
        Row("sequences in which a need was not met", f"{len(stories)} of {done}", "0", not stories),
        Row("sequences run", f"{total['sequences']:,}", f">= {count:,}", wanted),
        Row("deaths in them", f"{total['deaths']:,}: {deaths}", "> 0", total["deaths"] > 0),
    ]


def soak_each_death() -> Row:
    """Kill each deleting job at each of its operations, alone and with shared models."""
    from tests.deletions.deaths import die_once, list_deaths

    tried, wrong = 0, []
    for shared in (False, True):
        for job, number, torn in list_deaths(shared):
            tried += 1
            wrong += [f"{job} {number}: {one}" for one in die_once(job, number, torn, shared)]
    for one in wrong:
        sys.stderr.write(f"{one}\n")
    return Row("a death at each operation", f"{len(wrong)} wrong of {tried} deaths", "0", not wrong)


def soak_kills(kills: int, seed: int) -> Row:
    """Kill real processes."""
    from tests.deletions.killing import kill_beside_service

    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
        found = kill_beside_service(Path(name), kills, seed)
    for one in found.wrong:
        sys.stderr.write(f"{one}\n")
    value = f"{len(found.wrong)} wrong of {found.kills} kills, {found.met} met unfinished work"
    held = not found.wrong and found.met > 0
    return Row("real processes killed beside a service", value, "0 wrong", held)


def main() -> int:
    """Soak everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    rows = soak_sequences(arguments.sequences, arguments.seed, arguments.processes)
    rows.append(soak_each_death())
    rows.append(soak_kills(arguments.kills, arguments.seed))
    return show_rows(f"deleting jobs whatever happens, seed {arguments.seed}", rows)


if __name__ == "__main__":
    sys.exit(main())
