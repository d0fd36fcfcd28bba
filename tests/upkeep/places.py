"""Small experiments for upkeep: files of any age, models of a few bytes with weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.formatting import stamp
from opslib.core.plans import Outcome
from opslib.upkeep.maintenance import Maintained, Maintenance, plan_maintenance, run_maintenance

# Later than any moment of the whole run of tests: what they write must not be dated after now.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
NOBODY = "http://127.0.0.1:9"  # a port on which nothing listens


def write_field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field of less than 16 KiB."""
    size = len(data)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + data


def tiny_model(*weights: str) -> bytes:
    """The least that is an ONNX model: a graph, with a tensor kept in each of `weights`."""
    tensors = b""
    for location in weights:
        entry = write_field(1, b"location") + write_field(2, location.encode())
        tensors += write_field(5, write_field(13, entry))
    return write_field(7, write_field(2, b"tiny") + tensors)


@dataclass(frozen=True)
class Place:
    """An experiment in a folder of its own."""

    config_path: Path

    @property
    def config(self) -> Config:
        """The configuration, without the caller's environment."""
        return load_config(self.config_path, {})

    @property
    def exp(self) -> Path:
        """The experiment's folder."""
        return self.config_path.parent / "exp"

    def write(self, name: str, data: bytes | str = b"data\n", *, days: float = 0.0) -> Path:
        """Write a file of the experiment that was last changed `days` before now."""
        path = self.exp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return set_age(path, days)

    def write_model(
        self, name: str, *weights: str, days: float = 0.0, card: dict[str, object] | None = None
    ) -> Path:
        """Write a model into `export/` with weights beside it and, if given, a card."""
        path = self.write(f"export/{name}", tiny_model(*weights), days=days)
        for location in weights:
            if not (path.parent / location).exists():
                self.write(f"export/{location}", b"w" * 100, days=days)
        if card is not None:
            self.write(f"export/{path.stem}.json", json.dumps(card), days=days)
        return path

    def plan(self, now: datetime = NOW) -> Maintenance:
        """What a round would do."""
        return plan_maintenance(self.config, now=now)

    def run(self, now: datetime = NOW) -> Maintained:
        """Do a round."""
        return run_maintenance(self.config, show=lambda line: None, now=now)

    def targets(self, now: datetime = NOW) -> list[str]:
        """Which files a round would touch."""
        return [step.target for step in self.plan(now).plan.actions]

    def execute(self, now: datetime = NOW) -> Outcome:
        """Carry out the steps alone."""
        return self.plan(now).plan.execute()

    def files(self) -> dict[str, bytes]:
        """Every file of the experiment with its content."""
        found = (path for path in self.exp.rglob("*") if path.is_file())
        return {str(path.relative_to(self.exp)): path.read_bytes() for path in found}


def stamp_of(days: float) -> str:
    """The stamp of a file that was last changed `days` before now."""
    return stamp(NOW - timedelta(days=days))


def set_age(path: Path, days: float) -> Path:
    """Date a file `days` before now."""
    moment_ns = int((NOW.timestamp() - days * 86_400) * 1e9)
    os.utime(path, ns=(moment_ns, moment_ns), follow_symlinks=False)
    return path


def make_place(folder: Path, extra: str = "", *, disks: str = "/") -> Place:
    """Make an empty experiment; `extra` are lines of its `maintenance:` section."""
    (folder / "exp").mkdir(parents=True)
    path = folder / "config.yaml"
    lines = "".join(f"  {line}\n" for line in extra.splitlines())
    path.write_text(
        "paths:\n  exp_dir: exp\n  data_root: images\n  report_dir: reports\n"
        f"client: {{url: '{NOBODY}'}}\nmaintenance:\n  disks: [{disks}]\n{lines}"
    )
    return Place(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty experiment of this test's own."""
    return make_place(tmp_path)
