"""One run of a notebook as it is decided before a kernel starts, and its folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from opslib.core.config import Config
from opslib.core.errors import InputError, storage_errors
from opslib.core.files import fsync_folder
from opslib.core.formatting import utc_now
from opslib.core.secrets import live_secrets
from opslib.runs.parameters import ParameterSpec
from opslib.runs.redaction import Redactor

RESERVE_BYTES = 256 * 1024
RESERVE_FILE = ".reserve"
ALIVE_FILE = ".alive"
PARTIAL_SUFFIX = ".partial"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for: a notebook with checked values, how long, on which kernel."""

    notebook: Path
    document: Any
    specs: dict[str, ParameterSpec]
    values: dict[str, Any]
    config: Config
    kernel: str | None
    timeout_s: float | None
    progress: Progress

    @property
    def name(self) -> str:
        """The notebook's name without its ending."""
        return self.notebook.stem


@dataclass(frozen=True)
class Job(Request):
    """A request with an identity and a place.

    `aside` is the hidden folder that takes the name `folder` when the report is whole; `alive` is
    a lock in it, freed by the kernel when the runner dies.
    """

    id: str
    root: Path
    folder: Path
    aside: Path
    started: datetime
    alive: FileLock

    @property
    def target(self) -> Path:
        """Where the executed notebook is written."""
        return self.aside / f"{self.name}.ipynb"

    @property
    def root_href(self) -> str:
        """The relative path from the report's folder to the folder of the index."""
        return Path(os.path.relpath(self.root, self.folder)).as_posix() + "/"


def open_job(request: Request, root: Path, out: Path | None) -> Job:
    """Return the request as a job with a unique id and an empty hidden folder, in which room is
    kept for the report of a run that fills the disk.

    Raises:
        InputError: the report's folder exists already.
        StorageError: there is no room for it.
    """
    started = utc_now()
    clock = f"{started:%H%M%S}-{request.name}-{secrets.token_hex(3)}"
    folder = out.absolute() if out else root / f"{started:%Y-%m-%d}" / clock
    if folder.exists():
        raise InputError(f"{folder}: exists already; reports are never overwritten")
    aside = folder.parent / f".{folder.name}{PARTIAL_SUFFIX}"
    with storage_errors(f"create {folder}"):
        aside.mkdir(parents=True)
        alive = FileLock(aside / ALIVE_FILE)
        try:
            alive.acquire(timeout=0)
            (aside / RESERVE_FILE).write_bytes(b"\0" * RESERVE_BYTES)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return Job(
        **request.__dict__,
        id=f"{started:%Y%m%d}-{clock}",
        root=root,
        folder=folder,
        aside=aside,
        started=started,
        alive=alive,
    )


def publish_job(job: Job) -> None:
    """Give the finished report its name."""
    _drop_marks(job.aside)
    with storage_errors(f"create {job.folder}"):
        job.aside.rename(job.folder)
        fsync_folder(job.folder.parent)


def sweep_abandoned(root: Path) -> list[Path]:
    """Give the folders of runs whose runner was killed their names, so that they are seen.

    What the notebook had done by then is kept, secrets masked; a run that had not begun leaves
    nothing. Returns the folders named.
    """
    named = []
    for aside in root.glob(f"*/.*{PARTIAL_SUFFIX}"):
        if not (aside / ALIVE_FILE).is_file():
            continue  # no runner made it
        lock = FileLock(aside / ALIVE_FILE)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        _drop_marks(aside)
        lock.release()
        folder = aside.with_name(aside.name.removeprefix(".").removesuffix(PARTIAL_SUFFIX))
        if any(aside.glob("*.ipynb")):
            redactor = Redactor(live_secrets())
            for path in aside.iterdir():
                redactor.clean_file(path)
            aside.rename(folder)
            named.append(folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)
    return named


def _drop_marks(aside: Path) -> None:
    for name in (RESERVE_FILE, ALIVE_FILE):
        (aside / name).unlink(missing_ok=True)
