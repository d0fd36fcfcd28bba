"""One run of a notebook as it is decided before a kernel starts, and its folder."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock, Timeout

from opslib.core.config import Config
from opslib.core.errors import InputError, storage_errors
from opslib.core.files import fsync_folder
from opslib.core.formatting import utc_now
from opslib.runs.parameters import ParameterSpec
from opslib.runs.redaction import Redactor

RESERVE_BYTES = 256 * 1024
RESERVE_FILE = ".reserve"
ALIVE_FILE = ".alive"
PARTIAL_SUFFIX = ".partial"
Progress = Callable[[str], None]


def make_token() -> str:
    """Return something that no other run has, short."""
    return token_hex(3)


@dataclass(frozen=True)
class Job:
    """A notebook with checked values, how long and on which kernel, with an identity and a place.

    `root` is the folder of the index, `folder` the report's own.
    """

    notebook: Path
    document: Any
    specs: dict[str, ParameterSpec]
    values: dict[str, Any]
    config: Config
    root: Path
    out: Path | None
    kernel: str | None
    timeout_s: float | None
    progress: Progress
    started: datetime = field(default_factory=utc_now)
    token: str = field(default_factory=make_token)

    @property
    def name(self) -> str:
        """The notebook's name without its ending."""
        return self.notebook.stem

    @property
    def id(self) -> str:
        """What the run is called: when, which notebook, and something that no other run has."""
        return f"{self.started:%Y%m%d-%H%M%S}-{self.name}-{self.token}"

    @property
    def folder(self) -> Path:
        """The report's folder, once it is whole."""
        if self.out:
            return self.out.absolute()
        return self.root / f"{self.started:%Y-%m-%d}" / self.id.partition("-")[2]

    @property
    def aside(self) -> Path:
        """The hidden folder that takes the report's name when it is whole."""
        return self.folder.with_name(f".{self.folder.name}{PARTIAL_SUFFIX}")

    @property
    def target(self) -> Path:
        """Where the executed notebook is written."""
        return self.aside / f"{self.name}.ipynb"

    @property
    def root_href(self) -> str:
        """The relative path from the report's folder to the folder of the index."""
        return Path(os.path.relpath(self.root, self.folder)).as_posix() + "/"


@contextmanager
def open_job(job: Job) -> Iterator[None]:
    """Make the job's hidden folder, in which room is kept for the report of a run that fills the
    disk, and hold a lock in it, which the kernel frees when the runner dies.

    Raises:
        InputError: the report's folder exists already.
        StorageError: there is no room for it.
    """
    if os.path.lexists(job.folder):
        raise InputError(f"{job.folder}: exists already; reports are never overwritten")
    alive = FileLock(job.aside / ALIVE_FILE)
    with storage_errors(f"create {job.folder}"):
        job.aside.mkdir(parents=True)
        try:
            alive.acquire(timeout=0)
            (job.aside / RESERVE_FILE).write_bytes(b"\0" * RESERVE_BYTES)
        except OSError:
            shutil.rmtree(job.aside, ignore_errors=True)
            raise
    try:
        yield
    except BaseException:
        if not job.target.exists():  # else the next index gives what was executed its name
            shutil.rmtree(job.aside, ignore_errors=True)
        raise
    finally:
        alive.release()


def publish_job(job: Job) -> None:
    """Give the finished report its name. Raises `StorageError` where that cannot be done: the
    report stays hidden, whole; the next index names it where it lies in the report folder."""
    (job.aside / RESERVE_FILE).unlink(missing_ok=True)
    with storage_errors(f"name the report {job.folder}, which lies whole in {job.aside}"):
        job.aside.rename(job.folder)
        fsync_folder(job.folder.parent)
    (job.folder / ALIVE_FILE).unlink(missing_ok=True)


def sweep_abandoned(root: Path, secrets: frozenset[str]) -> list[Path]:
    """Give the folders of runs whose runner was killed their names, so that they are seen.

    What the notebook had done by then is kept, `secrets` masked; a run that had not begun leaves
    nothing. Returns the folders named; one whose name somebody took meanwhile gets another.
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
            redactor = Redactor(secrets)
            for path in aside.iterdir():
                redactor.clean_file(path)
            if folder.exists():
                folder = folder.with_name(f"{folder.name}-{make_token()}")
            aside.rename(folder)
            named.append(folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)
    return named


def _drop_marks(aside: Path) -> None:
    for name in (RESERVE_FILE, ALIVE_FILE):
        (aside / name).unlink(missing_ok=True)
