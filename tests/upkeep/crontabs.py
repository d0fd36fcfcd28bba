"""A `crontab` program of the test's own, and an experiment to schedule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from tests.models import write_config
from tests.running import run_python

# Keeps the table in a file, and refuses what cron would refuse, as the real one does.
CRONTAB = """#!/bin/sh
table="$(dirname "$0")/table"
case "$1" in
-l) if [ -f "$table" ]; then cat "$table"; else echo "no crontab for you" >&2; exit 1; fi ;;
-) cat > "$table.$$"
   sleep "${CRONTAB_TAKES_S:-0}"
   if grep -q '^99' "$table.$$"; then echo '"-":1: bad minute' >&2; exit 1; fi
   mv "$table.$$" "$table" ;;
esac
"""


@dataclass(frozen=True)
class Host:
    """A host with its own crontab: where it is kept, and a configured experiment."""

    folder: Path
    config_path: Path

    @property
    def config(self) -> Config:
        """The experiment's configuration."""
        return load_config(self.config_path, {})

    @property
    def table(self) -> Path:
        """The file that stands for the user's crontab."""
        return self.folder / "bin" / "table"

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which the program is found first."""
        return {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def call(
        self,
        *words: str,
        config: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `pillops schedule` with these words."""
        return run_python(
            self.command(*words, config=config), env=environment or self.environment, timeout=60
        )

    def command(self, *words: str, config: Path | None = None) -> list[str]:
        """The command line of `pillops schedule` with these words."""
        program = [sys.executable, "-m", "opslib.cli", "schedule", *words]
        return [*program, "--config", str(config or self.config_path)]


def make_host(folder: Path, extra: str = "") -> Host:
    """Build a host in `folder`."""
    program = folder / "bin" / "crontab"
    program.parent.mkdir(parents=True)
    program.write_text(CRONTAB)
    program.chmod(0o755)
    (folder / "exp").mkdir()
    return Host(folder, write_config(folder, extra))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host of this test's own; this process finds its `crontab`, too."""
    made = make_host(tmp_path)
    monkeypatch.setenv("PATH", made.environment["PATH"])
    return made
