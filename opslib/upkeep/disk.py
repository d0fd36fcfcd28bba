"""How full the disks are: a report a person reads, and a history a trend is drawn from."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from opslib.core.config import Config
from opslib.core.deadline import run_within
from opslib.core.errors import storage_errors
from opslib.core.files import write_text_atomic
from opslib.core.formatting import format_bytes
from opslib.core.language import tr
from opslib.upkeep.maintenance_record import DiskUse

HISTORY_FILE = "disk_history.jsonl"
MAX_HISTORY_LINES = 20_000
_DEADLINE_S = 20.0


@dataclass(frozen=True)
class DiskReport:
    """The use of each disk, notes on those that are missing, and warnings of full ones."""

    disks: tuple[DiskUse, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    text: str = ""


def look_at_disks(config: Config, now: datetime) -> DiskReport:
    """Return how full the configured disks and the experiment's own are; nothing is written."""
    section = config.maintenance
    at_utc = now.isoformat(timespec="seconds")
    wanted = [*section.disks, config.exp_dir]
    disks: dict[str, DiskUse] = {}
    notes = []
    looks = {str(one): partial(_look, config.resolve(one), at_utc) for one in wanted}
    looked = run_within(looks, _DEADLINE_S)
    for given in wanted:
        found = looked.get(str(given), tr("no answer within {seconds:g} s", seconds=_DEADLINE_S))
        if isinstance(found, str):
            notes.append(f"{given}: {found}")
            continue
        if str(config.resolve(given)) != found.mount and given in section.disks:
            notes.append(
                tr(
                    "{path}: nothing is mounted there; it lies on {mount}",
                    path=given,
                    mount=found.mount,
                )
            )
        disks.setdefault(found.mount, found)
    limit = section.disk_warn_pct
    warnings = [
        f"{one.mount} is {one.used_pct:.0f} % full, over {limit:g} %; "
        f"{format_bytes(one.free_bytes)} are free"
        for one in disks.values()
        if one.used_pct > limit
    ]
    told = [f"note: {one}" for one in notes] + [f"warning: {one}" for one in warnings]
    lines = [f"{now:%Y-%m-%d %H:%M} UTC", "", _run_df(list(disks)), *told, ""]
    return DiskReport(tuple(disks.values()), tuple(notes), tuple(warnings), "\n".join(lines))


def report_path(config: Config, now: datetime) -> Path:
    """Return where the disk report of the day (UTC) lies."""
    return config.records_dir / f"disk_{now:%Y%m%d}.txt"


def keep_disk_report(config: Config, now: datetime, report: DiskReport) -> None:
    """Write the day's disk report and add it to the history; `StorageError` where the folder
    cannot be written."""
    write_text_atomic(report_path(config, now), report.text)
    history = (*read_disk_history(config), *report.disks)[-MAX_HISTORY_LINES:]
    lines = "".join(f"{one.model_dump_json()}\n" for one in history)
    write_text_atomic(config.records_dir / HISTORY_FILE, lines)


def read_disk_history(config: Config) -> tuple[DiskUse, ...]:
    """Return what was measured of the disks so far, the oldest first; broken lines are left out.
    `StorageError` where the history cannot be read."""
    path = config.records_dir / HISTORY_FILE
    found, lines = list[DiskUse](), list[bytes]()
    with storage_errors(f"read {path}"), suppress(FileNotFoundError):
        lines = path.read_bytes().splitlines()
    for line in lines:
        with suppress(ValidationError):
            found.append(DiskUse.model_validate_json(line))
    return tuple(found)


def find_mount(path: Path) -> Path:
    """Return the folder at which the filesystem of `path` is mounted."""
    real = path.resolve()
    while not os.path.ismount(real):
        real = real.parent
    return real


def _look(path: Path, at_utc: str) -> DiskUse | str:
    """The use of the disk on which `path` lies, or why it is not known."""
    try:
        if not path.exists():
            return tr("no such folder; nothing is mounted there")
        mount = find_mount(path)
        facts = os.statvfs(mount)
    except OSError as error:
        return tr("cannot be looked at: {why}", why=error.strerror or error)
    size = facts.f_frsize
    return DiskUse(
        at_utc=at_utc,
        mount=str(mount),
        total_bytes=facts.f_blocks * size,
        used_bytes=(facts.f_blocks - facts.f_bfree) * size,
        free_bytes=facts.f_bavail * size,
    )


def _run_df(mounts: list[str]) -> str:
    """What `df -h` prints of these mounts, or the reason why it does not."""
    try:
        answer = subprocess.run(
            ["df", "-h", "--", *mounts],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DEADLINE_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"df -h: {error}"
    return (answer.stdout + answer.stderr).rstrip()
