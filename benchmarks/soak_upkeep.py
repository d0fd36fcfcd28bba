"""Kill maintenance at random moments, long enough to meet each of its steps; count every line.

Under a writer of 2,000 lines a second: our service's, and a foreign one on a filesystem that can
take the front off a file and on one that cannot; then without a writer, on a full experiment.

    python benchmarks/soak_upkeep.py [--kills 100] [--seed N]

Exit code 3 when a line is lost where none may be, one is repeated, or a rerun does not finish.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from figures import Row, show_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opslib.upkeep.cut_log import collapse_works
from tests.upkeep.killing import kill_under_writer, kill_while_cleaning
from tests.upkeep.places import make_place

SMALL = "rotate_mb: 0.02"
PLACES = (Path(tempfile.gettempdir()), Path("/dev/shm"), Path.home())


def find_place(*, collapsing: bool) -> Path | None:
    """Return a folder on a filesystem that can, or cannot, take the front off a file."""
    for folder in PLACES:
        if folder.is_dir() and collapse_works(folder) == collapsing:
            return folder
    return None


def soak_writer(what: str, kind: str, extra: str, where: Path | None, kills: int, seed: int) -> Row:
    """Kill under one kind of writer; return the row of the table."""
    if where is None:
        return Row(what, "no such filesystem here", "", None)
    with tempfile.TemporaryDirectory(prefix="pillops-soak-", dir=where) as name:
        place = make_place(Path(name) / "place", f"{SMALL}\n{extra}")
        counted = kill_under_writer(place, kind, kills, seed)
    allowed = counted.rotations if "truncat" in what else 0
    bound = f"<= {allowed} lost, 0 repeated" if allowed else "0 lost, 0 repeated"
    value = (
        f"{counted.lost} lost, {counted.repeated} repeated of {counted.written:,} lines, "
        f"{counted.rotations} archives, {kills} kills"
    )
    held = counted.lost <= allowed and counted.repeated == 0
    return Row(what, value, bound, held)


def soak_cleaning(kills: int, seed: int) -> Row:
    """Kill the cleaning of full experiments, twenty kills each."""
    met = same = rounds = 0
    for turn in range(max(1, kills // 20)):
        with tempfile.TemporaryDirectory(prefix="pillops-soak-") as name:
            calm, stormy, found = kill_while_cleaning(Path(name), 20, seed + turn)
        met, same, rounds = met + found, same + (calm == stormy), rounds + 1
    value = f"{same} of {rounds} experiments, {met} kills met unfinished work"
    held = same == rounds and met > 0
    return Row("ends as an undisturbed round ends", value, "all", held)


def main() -> int:
    """Soak everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    kills, seed = arguments.kills, arguments.seed
    able, unable = find_place(collapsing=True), find_place(collapsing=False)
    anywhere = Path(tempfile.gettempdir())
    reopened = "reopened_logs: [api.out]"
    rows = [
        soak_writer("our writer, renamed", "ours", reopened, anywhere, kills, seed),
        soak_writer("a foreign writer, front taken off", "append", "", able, kills, seed),
        soak_writer("a foreign writer, truncated", "append", "", unable, kills, seed),
        soak_cleaning(kills, seed),
    ]
    return show_rows(f"maintenance killed at random moments, seed {seed}", rows)


if __name__ == "__main__":
    sys.exit(main())
