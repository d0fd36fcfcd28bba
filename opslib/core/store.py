"""A folder of objects that several hosts share: a bucket, a folder of a host that all reach by ssh,
or one that all of them mount.

It is named by an address (`core/store_address.py`) and reached through fsspec, which is not loaded
before the first store. Credentials come from the environment, the usual profile files or an ssh
agent, never from the address. Whatever goes wrong is one `StorageError` that names the object and
the cause.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from opslib.core.errors import (
    OpsError,
    ParameterError,
    StorageError,
    UnavailableError,
    storage_errors,
)
from opslib.core.files import hide_name, is_temporary, reveal_name
from opslib.core.store_address import check_store_url, read_ssh_host
from opslib.core.store_errors import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    error_code,
    explain_refusal,
)
from opslib.core.store_reading import Reading, Streamed, read_ahead

ATTEMPTS = 3
PART_BYTES = 1 << 23  # of an upload; an object of less than two is sent whole
UPLOADS = 4  # parts at a time, each held in memory twice
PARALLEL = 8


class Entry(NamedTuple):
    """What a listing says of one object: its size, a text that changes with its bytes, and when it
    was written, in seconds since the epoch by the store's own clock."""

    bytes: int
    version: str
    modified_s: float = 0.0


@dataclass(frozen=True)
class Store:
    """A folder of objects; `open_store` makes one. It belongs to the process that opened it, and
    its threads may share it. Names are relative, with `/`. Every method raises `StorageError`."""

    url: str
    _files: Any = field(repr=False, compare=False)
    _root: str = field(repr=False)
    _protocol: str = field(repr=False)

    def list(self, prefix: str = "") -> dict[str, Entry]:
        """Return every object whose name begins with `prefix`, in order of their names; what was
        never finished is left out, and a folder that is not there yet is empty."""
        if self._protocol == "s3":
            with self._errors("list", prefix):
                found = self._files.find(self._root, prefix=prefix, detail=True)
        else:
            with self._errors("list", prefix):
                top = str(PurePosixPath(self._root, prefix.rpartition("/")[0]))
                found = self._files.find(top, detail=True) if self._files.exists(top) else {}
        entries = {path[len(self._root) + 1 :]: facts for path, facts in found.items()}
        return {
            name: _entry(facts)
            for name, facts in sorted(entries.items())
            if name.startswith(prefix)
            and not name.endswith("/")  # what some tools make where they show a folder
            and not is_temporary(name.rpartition("/")[2])
        }

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        with self._errors("read", name):
            return bytes(self._files.cat_file(self._path(name)))

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of small objects, read several at a time; what is gone is left out."""
        wanted = list(names)
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = zip(wanted, pool.map(self._read_if_there, wanted), strict=True)
            return {name: data for name, data in found if data is not None}

    def open(self, name: str) -> BinaryIO:
        """Return an object as a binary file to read from its start to its end, a block ahead; it
        can be sent back to its start. Close it."""
        path = self._path(name)
        if self._protocol == "s3":
            return read_ahead(Streamed(self._files, path, lambda: self._errors("read", name)))
        with self._errors("read", name):
            file = self._files.open(path)
        return read_ahead(Reading(file, lambda: self._errors("read", name)))

    def write(self, name: str, data: bytes) -> None:
        """Give the object `name` these bytes; it appears whole, over what was there."""
        with self._errors("write", name):
            self._put(name, lambda path: self._files.pipe_file(path, data))

    def upload(self, path: Path, name: str) -> None:
        """Give the object `name` the bytes of the file `path`, however large; it appears whole,
        over what was there. Raises `StorageError` where the file cannot be read, too."""
        parts = (
            {"chunksize": PART_BYTES, "max_concurrency": UPLOADS} if self._protocol == "s3" else {}
        )
        with storage_errors(f"read {path}"):
            path.open("rb").close()
        with self._errors(f"copy {path} to", name):
            self._put(name, lambda target: self._files.put_file(str(path), target, **parts))

    def download(self, name: str, path: Path) -> None:
        """Write the bytes of an object to the file `path`, which may be half written after an
        error."""
        with self._errors(f"copy to {path}", name):
            self._files.get_file(self._path(name), str(path))

    def drop_unfinished(self, name: str) -> None:
        """Give up what uploads of the object `name` left that were killed: bytes that nobody sees
        and somebody pays for. There must be none under way."""
        path = self._path(name)
        with self._errors("clean", name):
            if self._protocol != "s3":
                folder = path.rpartition("/")[0]
                there = self._files.ls(folder, detail=False) if self._files.exists(folder) else []
                for one in there:
                    if reveal_name(one.rpartition("/")[2], "tmp") == path.rpartition("/")[2]:
                        self._files.rm_file(one)
                return
            bucket, key, _ = self._files.split_path(path)
            found = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
            for one in found.get("Uploads", []):
                if one["Key"] == key:
                    said = {"Bucket": bucket, "Key": key, "UploadId": one["UploadId"]}
                    self._files.call_s3("abort_multipart_upload", **said)

    def delete(self, names: Iterable[str]) -> None:
        """Delete these objects; one that is gone already is no error."""
        for name in names:
            with self._errors("delete", name), suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))

    def _read_if_there(self, name: str) -> bytes | None:
        with self._errors("read", name):
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError as error:
                if error_code(error) == "NoSuchBucket":
                    raise
                return None

    def _path(self, name: str) -> str:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or str(path) != name:
            raise ParameterError(f"{name!r}: expected a relative name without ..")
        return f"{self._root}/{name}"

    def _put(self, name: str, put: Callable[[str], None]) -> None:
        path = self._path(name)
        if self._protocol == "s3":  # there an object is seen when its last byte has arrived
            put(path)
            return
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        aside = str(hide_name(Path(path)))
        try:
            put(aside)
            if self._protocol == "file":
                Path(aside).replace(path)  # fsspec's own move goes into a folder of that name
            else:
                self._files.replace(aside, path)
        except BaseException:
            with suppress(Exception):
                self._files.rm_file(aside)
            raise

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except OpsError:
            raise
        except Exception as error:  # fsspec's, asyncssh's and the system's have no root but it
            where = f"{self.url}/{name}".rstrip("/")
            raise StorageError(f"cannot {action} {where}: {explain_refusal(error)}") from error


def open_store(url: str) -> Store:
    """Return the store at an address; a bucket is not asked for anything yet.

    Raises:
        ParameterError: it is no address, of an unknown protocol, or holds credentials.
        UnavailableError: a package that the protocol needs is not installed.
    """
    parts = urlsplit(url := check_store_url(url))
    if parts.scheme == "sftp":
        try:
            from opslib.core.store_sftp import SftpFiles
        except ImportError:
            raise UnavailableError(f"{url}: needs sshfs: pip install 'pillops[sftp]'") from None

        return Store(url, SftpFiles(read_ssh_host(parts.netloc)), unquote(parts.path), "sftp")
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(parts.scheme)
    except ImportError:
        raise UnavailableError(f"{url}: needs s3fs: pip install 'pillops[s3]'") from None
    if parts.scheme == "s3":
        return Store(url, _connect_s3(kind), f"{parts.netloc}{parts.path}", "s3")
    return Store(url, kind(skip_instance_cache=True), unquote(parts.path), "file")


def _connect_s3(kind: Any) -> Any:
    from aiobotocore.session import AioSession

    session = AioSession()  # its own reading of dates is most of what a listing costs
    answers = session.get_component("response_parser_factory")
    answers.set_parser_defaults(timestamp_parser=_read_moment)
    # One attempt at a time reads a body, so that an object costs one request, not a HEAD too.
    files = kind(
        session=session,
        skip_instance_cache=True,
        use_listings_cache=False,
        max_concurrency=1,
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        },
    )
    files.retries = 2  # of s3fs itself, around those of botocore: for an answer that breaks off
    return files


def _read_moment(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):  # as in a header
        from botocore.utils import parse_timestamp

        moment: datetime = parse_timestamp(text)
        return moment


def _entry(facts: dict[str, Any]) -> Entry:
    changed = facts.get("mtime") or facts.get("LastModified")
    moment = changed.timestamp() if isinstance(changed, datetime) else float(changed or 0)
    version = str(facts.get("ETag") or changed).strip('"')
    return Entry(int(facts["size"]), f"{facts['size']}-{version}", moment)
