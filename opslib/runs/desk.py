"""The common desk: the runs of several hosts in one store, each told by a record of its own.

A run's files have the names that they have in the report folder. Its record has its place below
`.runs/<host>/`, such as `.runs/gpu1/2026-11-30/101500-01_bench-1a2b3c/run.json`, and is written
when all else of the run is there: the set of these records is the truth. `index.html` is made from
them by whoever added one, and nobody changes a list that others change too.
"""

import re
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from opslib.core.config import Config
from opslib.core.errors import ConfigError, InputError, StorageError
from opslib.core.files import write_text_atomic
from opslib.core.plans import Plan
from opslib.core.records import Part
from opslib.core.store import Entry, Store, open_store
from opslib.core.store_address import WANTED
from opslib.runs.catalogue import SIDE_SUFFIX, RunRow, newest_first, parse_row
from opslib.runs.index import INDEX_FILE, render_index
from opslib.runs.run_record import RUN_FILE

RECORDS = ".runs/"  # hidden, as nothing in a report folder is that is listed
MARKS = ".marks/"  # one of each host, which changes with its last record
UNKNOWN_HOST = "unknown"  # of a notebook that plain papermill wrote to the desk
CACHE_FILE = ".desk.json"
MANY = 100  # records that a host would rather not read one by one
MOST_ROUNDS = 100


@dataclass(frozen=True)
class Desk:
    """A store, what this host is called there, and this host's own report folder."""

    store: Store
    host: str
    root: Path

    @property
    def page(self) -> str:
        """The address of the page that lists the runs of all hosts."""
        return f"{self.store.url}/{INDEX_FILE}"


class DeskRun(Part):
    """One run at the desk: whose it is, which version of its record was read, and its row."""

    host: str
    version: str
    row: RunRow

    @property
    def place(self) -> str:
        """Where its record lies in a report folder."""
        return self.row.record_path

    @property
    def record_name(self) -> str:
        """The name of its record at the desk."""
        return record_name(self.host, self.place)

    @property
    def is_whole(self) -> bool:
        """Whether its record could be read."""
        return self.row.id != self.place


class _Cache(Part):
    version: Literal[2] = 2
    url: str
    runs: dict[str, DeskRun] = {}


def open_desk(config: Config) -> Desk:
    """Return the desk that the configuration names; nothing is asked of it yet.

    Raises:
        ConfigError: `desk.url` is not set, or is the report folder itself, or this host's name
            cannot be used there.
        UnavailableError: a package that the store needs is not installed.
    """
    if config.desk.url is None:
        raise ConfigError(f"{config.source}: desk.url: is not set; {WANTED}")
    host = config.desk.host or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", host) or host == UNKNOWN_HOST:
        raise ConfigError(f"desk.host: this host is called {host!r}; expected another name")
    desk = Desk(open_store(config.desk.url), host, config.report_dir)
    if desk.store.url in (config.report_dir.as_uri(), f"file://{config.report_dir}"):
        raise ConfigError(f"desk.url: {desk.store.url} is this host's own report folder")
    return desk


def record_name(host: str, place: str) -> str:
    """Return the name at the desk of the record of a host's run."""
    return f"{RECORDS}{host}/{place}"


def read_runs(desk: Desk) -> dict[str, DeskRun]:
    """Return all runs at the desk by the names of their records: one request lists a thousand, and
    only those are read that this host has not read before. What a host read of many lies at the
    desk too, for the next one that would have to. Raises `StorageError`."""
    cache = _read_cache(desk)
    found = {name: entry for name, entry in desk.store.list(RECORDS).items() if _is_record(name)}
    known = _find_known(cache, found)
    if len(found) - len(known) > MANY:
        known |= _find_known(_read_shared(desk), found)
    fresh = desk.store.read_many(name for name in found if name not in known)
    for name, data in fresh.items():
        host, _, place = name.removeprefix(RECORDS).partition("/")
        # No figure of it is drawn from the desk, and they are half of what would be kept and read.
        row = parse_row(data, place).model_copy(update={"measured": ()})
        known[name] = DeskRun(host=host, version=found[name].version, row=row)
    if known != cache.runs:
        text = _Cache(url=desk.store.url, runs=known).model_dump_json()
        with suppress(StorageError):
            write_text_atomic(desk.root / CACHE_FILE, text)
        if len(fresh) > MANY:
            with suppress(StorageError):
                desk.store.write(CACHE_FILE, text.encode())
    return dict(sorted(known.items()))


def build_desk_index(desk: Desk) -> dict[str, DeskRun]:
    """Write the page that lists all runs at the desk, and return them.

    Of hosts that do so at the same time the last one may know less than another. So each leaves a
    mark after its records, looks at all marks before it reads and again after it wrote, and begins
    anew where one has changed: after the last of them the page lists all. Raises `StorageError`.
    """
    desk.store.write(f"{MARKS}{desk.host}", secrets.token_hex(8).encode())
    marks = desk.store.list(MARKS)
    for _ in range(MOST_ROUNDS):
        runs = read_runs(desk)
        rows: dict[str, RunRow] = {}
        hosts: dict[str, str] = {}
        for run in runs.values():  # one that a host adopted, too, is told as that host's
            if run.row.id not in hosts or hosts[run.row.id] == UNKNOWN_HOST:
                rows[run.row.id], hosts[run.row.id] = run.row, run.host
        page = render_index(newest_first(rows.values()), hosts=hosts)
        desk.store.write(INDEX_FILE, page.encode())
        before, marks = marks, desk.store.list(MARKS)
        if marks == before:
            break
    return runs


def carry_out_runs(plan: Plan, show: Callable[[str], None]) -> int:
    """Carry out a plan whose steps take one run each, and return how many were skipped because the
    run itself is damaged; each is said. Raises `StorageError` at the first that the store or a disk
    refuses: the others would fare alike, and the next call goes on from there."""
    skipped = 0
    for action in plan.actions:
        try:
            action.run()
        except InputError as error:
            skipped += 1
            show(f"skipped: {action.target}: {error}")
    return skipped


def run_files(place: str, files: tuple[str, ...]) -> list[str]:
    """Return the names of the files of a run with its record at `place`, that record last. Raises
    `InputError` where one is no plain name."""
    folder, _, own = place.rpartition("/")
    names = files
    if own != RUN_FILE:
        stem = own.removesuffix(SIDE_SUFFIX)
        names = (f"{stem}.html", f"{stem}.ipynb")
    for name in names:
        if not name or "/" in name or name.startswith(".") or name == own:
            raise InputError(f"its record names a file {name!r}; expected plain names")
    return [f"{folder}/{name}".lstrip("/") for name in (*names, own)]


def _is_record(name: str) -> bool:
    parts = name.removeprefix(RECORDS).split("/")
    plain = not any(not part or part.startswith(".") or not part.isprintable() for part in parts)
    return plain and len(parts) > 1 and (parts[-1] == RUN_FILE or name.endswith(SIDE_SUFFIX))


def _read_cache(desk: Desk) -> _Cache:
    try:
        cache = _Cache.model_validate_json((desk.root / CACHE_FILE).read_bytes())
    except (OSError, ValidationError):
        return _Cache(url=desk.store.url)
    return cache if cache.url == desk.store.url else _Cache(url=desk.store.url)


def _read_shared(desk: Desk) -> _Cache:
    try:
        data = desk.store.read_many([CACHE_FILE]).get(CACHE_FILE, b"")
        return _Cache.model_validate_json(data)
    except (StorageError, ValidationError):
        return _Cache(url=desk.store.url)


def _find_known(cache: _Cache, found: Mapping[str, Entry]) -> dict[str, DeskRun]:
    """Return the runs whose records are still those that were read, and lie where they say."""
    return {
        name: run
        for name, run in cache.runs.items()
        if name in found
        and run.version == found[name].version
        and run.record_name == name
        and "/" not in run.host
    }
