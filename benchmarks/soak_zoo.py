"""Take every foreign model of the zoo through all seven doors, and variants of them through
inspection and trial.

    python benchmarks/soak_zoo.py [--variants 500] [--seed N] [MODEL ...]

Exit code 3 when a door took or refused a model otherwise than docs/MODELS.md says, ended with a
traceback, left something behind, or a variant was not refused in one line.
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

from tests.zoo.doors import find_fault, knock, make_place, open_live
from tests.zoo.mutations import MUTATIONS, SIDECARS
from tests.zoo.table import DOORS, MODELS
from tests.zoo.variants import BASES, try_variant


def walk_doors(folder: Path, names: list[str]) -> list[str]:
    """Return what is wrong with how the doors took the models of these names, by default all."""
    faults = []
    with open_live(folder) as live:
        for one in (one for one in MODELS if not names or one.name in names):
            place = make_place(folder / one.name, one)
            found = [find_fault(one, door, knock(door, place, live)) for door in DOORS]
            faults += [fault for fault in found if fault]
            for fault in filter(None, found):
                print(fault, file=sys.stderr, flush=True)
    return faults


def try_variants(folder: Path, count: int, seed: int) -> list[str]:
    """Return what is wrong with how so many variants were taken."""
    faults = []
    for number in range(count):
        chance = random.Random(f"{seed}-{number}")
        mutations = chance.choices(sorted(MUTATIONS), k=chance.randint(1, 5))
        base, sidecar = chance.choice(sorted(BASES)), chance.choice((None, None, *SIDECARS))
        (folder / str(number)).mkdir()
        fault = try_variant(folder / str(number), base, mutations, sidecar, chance)
        if fault:
            print(f"variant {number}: {fault}", file=sys.stderr, flush=True)
            faults.append(fault)
    return faults


def main() -> int:
    """Walk, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these of the zoo")
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
        os.environ["PILLOPS_LOCK_DIR"] = str(Path(name) / "locks")
        doors = walk_doors(Path(name) / "doors", arguments.models)
        (Path(name) / "variants").mkdir()
        variants = try_variants(Path(name) / "variants", arguments.variants, arguments.seed)
    count = len(arguments.models or MODELS)
    rows = [
        Row("taken otherwise than said", f"{len(doors)} of {count * len(DOORS)}", "0", not doors),
        Row("variants", f"{len(variants)} of {arguments.variants}", "0", not variants),
    ]
    return show_rows(f"other people's models, {count} at {len(DOORS)} doors", rows)


if __name__ == "__main__":
    sys.exit(main())
