"""Killing maintenance at random moments, and what must be so afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opslib.upkeep.cut_log import collapse_works
from tests.upkeep.places import Place, make_place
from tests.upkeep.writers import ROOT, count_lines, start_writer


@dataclass(frozen=True)
class Counted:
    """How many lines a writer wrote, the numbers of those found, and how often was rotated."""

    written: int
    found: list[int]
    rotations: int

    @property
    def lost(self) -> int:
        """Lines that are nowhere."""
        return self.written - len(set(self.found))

    @property
    def repeated(self) -> int:
        """Lines that are in two places."""
        return len(self.found) - len(set(self.found))


def kill_while_working(place: Place, longest_s: float, rng: random.Random) -> None:
    """Let a process maintain without a pause and kill it within `longest_s`."""
    command = [sys.executable, "-m", "tests.upkeep.restless", str(place.config_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, longest_s))
    assert process.poll() is None
    process.kill()
    process.wait()


def kill_under_writer(place: Place, kind: str, kills: int, seed: int) -> Counted:
    """Kill maintenance again and again while a log is written; then let it finish."""
    rng = random.Random(seed)
    logs = place.exp / "logs"
    with start_writer(kind, logs / "api.out") as writer:
        for _ in range(kills):
            kill_while_working(place, 0.3, rng)
    place.run()
    assert not place.targets(), "a rerun finishes the job"
    # What a killed writer of the notes left is only known to be abandoned after a day.
    place.run(datetime.now(UTC) + timedelta(days=2))
    hidden = [path.name for path in logs.rglob(".*") if path.is_file()]
    assert not hidden, "it leaves nothing hidden"
    rotations = len(list((logs / "archive").iterdir()))
    found = count_lines(logs, "api.out", torn_ends=not collapse_works(logs))
    return Counted(writer.lines, found, rotations)


def kill_while_cleaning(folder: Path, kills: int, seed: int) -> tuple[set[str], set[str], int]:
    """Clean the same experiment undisturbed, and killed again and again; return which files are
    left of each, our records aside, and how often a kill met unfinished work."""
    rng = random.Random(seed)
    calm, stormy = (fill(make_place(folder / name)) for name in ("calm", "stormy"))
    calm.run()
    met = 0
    for _ in range(kills):
        kill_while_working(stormy, 0.25, rng)
        met += bool(stormy.targets())
    stormy.run()
    return leavings(calm), leavings(stormy), met


def fill(place: Place) -> Place:
    """Give maintenance some hundred things to do."""
    for number in range(150):
        place.write(f"logs/job{number}.out", b"line\n" * 2000, days=8 + number / 100)
        place.write(f"logs/archive/old{number}.out.gz", days=31)
        place.write(f"checkpoints/last_{number}.pt", days=20 + number)
    for number in range(40):
        weights = f"w{number // 2}.data"
        place.write_model(f"model-{number:02d}.onnx", weights, days=100 - number, card={})
        report = place.config.report_dir / "2020-01-01" / f"0000{number:02d}-01_bench-abcdef"
        report.mkdir(parents=True)
        (report / "run.json").write_text("{}")
    return place


def leavings(place: Place) -> set[str]:
    """The files that are left, but for what each round writes itself."""
    home = place.config_path.parent
    found = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[:2] != ("exp", "reports")} - {
        "exp/.maintenance.lock"
    }
