"""Two processes that change the same file at the same moment, and a writer that is killed.

    python -m tests.racing SIDE FOLDER

is one side of a pair: it makes its change number N of a kind for each line `KIND N` that it reads,
and says whether it is still there for each line `see`.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from opslib.core.config import load_config
from opslib.core.config_edit import set_keys
from opslib.core.errors import OpsError
from opslib.core.files import is_temporary
from opslib.core.served import ServedModel, keep_served, read_served_state
from opslib.serving.dotenv import set_variable
from opslib.serving.keys import check_key, make_key, rotate_key
from opslib.upkeep.crontab import hold_crontab, read_crontab
from opslib.upkeep.jobs import Place
from opslib.upkeep.schedule import edit_to_install
from tests.models import write_config

ROOT = Path(__file__).resolve().parents[1]
KINDS = (".env", "config.yaml", "served", "crontab")
SIDES = ("one", "two")


@dataclass(frozen=True)
class Raced:
    """How many pairs there were, and what of them was lost, in words."""

    pairs: int
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Killed:
    """How many writers were killed, how many left something, and what nothing would sweep."""

    kills: int
    leftovers: int
    unswept: tuple[str, ...]


def make_ground(folder: Path) -> Path:
    """Make two experiments in `folder` for the pairs and return it."""
    for side in SIDES:
        (folder / side / "exp").mkdir(parents=True)
        write_config(folder / side)
    write_config(folder, "bench: {seed: 0}  # kept\n")
    (folder / "exp").mkdir()
    (folder / ".env").write_text("# mine\nLOG_LEVEL=INFO\n")
    return folder


@dataclass(frozen=True)
class Pair:
    """Two running processes, each a side of every pair of changes."""

    sides: tuple[subprocess.Popen[str], subprocess.Popen[str]]

    def race(self, kind: str, pairs: int) -> Raced:
        """Let both change one thing `pairs` times at the same moment; see what is lost."""
        lost = []
        for number in range(1, pairs + 1):
            for process in self.sides:
                _say(process, f"{kind} {number}")
            answers = [_answer(process) for process in self.sides]
            for process in self.sides:
                _say(process, "see")
            answers += [_answer(process) for process in self.sides]
            if answers != ["done", "done", "there", "there"]:
                lost.append(f"{kind}, pair {number}: {answers}")
        return Raced(pairs, tuple(lost))


@contextmanager
def start_pair(folder: Path, environment: Mapping[str, str]) -> Iterator[Pair]:
    """Start two writers on the ground that `make_ground` made in `folder`."""
    one, two = (
        subprocess.Popen(
            [sys.executable, "-m", "tests.racing", side, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=ROOT,
        )
        for side in SIDES
    )
    try:
        assert [_answer(process) for process in (one, two)] == ["ready", "ready"]
        yield Pair((one, two))
    finally:
        for process in (one, two):
            process.communicate()


def kill_rotations(folder: Path, kills: int, seed: int) -> Killed:
    """Kill a process that rotates the key again and again at random moments; after each, see what
    lies in the folder, then write once more."""
    moments = random.Random(seed)
    env_file = folder / ".env"
    rotate_key(env_file)
    known = {path.name for path in folder.iterdir()}
    leftovers, unswept = 0, []
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    rotate_key(env_file)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_key(dotenv_values(env_file)["API_KEY"])
        left = {path.name for path in folder.iterdir()} - known
        leftovers += bool(left)
        unswept += [name for name in left if not is_temporary(name)]
        set_variable(env_file, "LOG_LEVEL", secrets.choice(["INFO", "ERROR"]))
        unswept += sorted({path.name for path in folder.iterdir()} - known)
    return Killed(kills, leftovers, tuple(unswept))


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _change_env(folder: Path, side: str, number: int) -> Callable[[], bool]:
    name = {"one": "API_KEY", "two": "MODEL_PATH"}[side]
    value = {"one": make_key(), "two": f"/models/{number}.onnx"}[side]
    note = f"# {name} since {number}" if side == "one" else None
    set_variable(folder / ".env", name, value, note=note)
    return lambda: dotenv_values(folder / ".env")[name] == value


def _change_config(folder: Path, side: str, number: int) -> Callable[[], bool]:
    section, key = {"one": ("bench", "seed"), "two": ("maintenance", "leftover_hours")}[side]
    path = folder / "config.yaml"
    set_keys(path, {f"{section}.{key}": number})
    return lambda: getattr(getattr(load_config(path, {}), section), key) == number


def _change_served(folder: Path, side: str, number: int) -> Callable[[], bool]:
    config = load_config(folder / "config.yaml", {})
    model = ServedModel(
        path=Path(f"/{side}.onnx"),
        sha256=f"{side}-{number}",
        version_tag="v",
        generation=number,
        switched_at_utc="2026-11-01T00:00:00+00:00",
    )
    keep_served(config, model)

    def is_there() -> bool:
        state = read_served_state(config)
        return state is not None and model in (state.current, *state.previous[:1])

    return is_there


def _change_crontab(folder: Path, side: str, number: int) -> Callable[[], bool]:
    config = load_config(folder / side / "config.yaml", {})
    place = Place(root=Path(f"/{side}-{number}"), bin=Path("/bin"))
    with hold_crontab():
        edit = edit_to_install(config, place)
        assert not edit.plan().execute().skipped
    return lambda: f"/{side}-{number}/scripts" in read_crontab()


_CHANGES = {
    ".env": _change_env,
    "config.yaml": _change_config,
    "served": _change_served,
    "crontab": _change_crontab,
}


def _take_part(side: str, folder: Path) -> None:
    """Be one side: change at each number that is read, and say at each `see` what is there."""
    is_there = None
    _tell("ready")
    for line in map(str.strip, sys.stdin):
        if line == "see":
            _tell("there" if is_there and is_there() else "lost")
            continue
        try:
            kind, number = line.split()
            is_there = _CHANGES[kind](folder, side, int(number))
            _tell("done")
        except OpsError as error:
            _tell(f"{error}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _take_part(sys.argv[1], Path(sys.argv[2]))
