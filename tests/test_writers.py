"""Writers at the same moment lose nothing, and killed ones leave no secret that nothing removes.

`python benchmarks/soak_writers.py` does the same for longer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.racing import KINDS, ROOT, Pair, kill_rotations, make_ground, start_pair
from tests.turns import looped, turns
from tests.upkeep.crontabs import make_host

PAIRS = turns(10, 50)
KILLS = turns(5, 25)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two writers on one ground, with a `crontab` of their own."""
    folder = tmp_path_factory.mktemp("racing")
    host = make_host(folder / "host")
    environment = host.environment | {"PILLOPS_LOCK_DIR": str(folder / "locks")}
    with start_pair(make_ground(folder / "ground"), environment) as started:
        yield started


@looped
@pytest.mark.parametrize("kind", KINDS)
def test_of_two_writers_at_the_same_moment_neither_is_undone(kind: str, pair: Pair) -> None:
    assert pair.race(kind, PAIRS).lost == ()


@looped
def test_a_killed_rotation_leaves_no_key_that_nothing_removes(tmp_path: Path) -> None:
    assert kill_rotations(tmp_path, KILLS, seed=20261128).unswept == ()


def test_what_a_killed_rotation_leaves_is_ignored_by_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / ".env").touch()
    (tmp_path / "..env.pillops-0123456789abcdef.tmp").touch()
    shown = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "?? .gitignore\n"
