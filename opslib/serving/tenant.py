"""A service as a tenant of the folders it takes models from: its leases are written before it uses
a model, renewed while it runs, and say at its end that it stopped."""

import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Self

from opslib.core.errors import InputError, StorageError
from opslib.core.files import write_text_atomic
from opslib.core.served import read_served_state
from opslib.serving.generations import Generations
from opslib.serving.leases import LEASE_FOLDER, REFRESH_S, Lease, lease_folders
from opslib.serving.logs import EVENT_LOGGER
from opslib.serving.settings import ServiceSettings

_log = logging.getLogger(f"{EVENT_LOGGER}.tenant")


class Tenant:
    """The leases of one service that listens on `address` and `port`. A context manager: they are
    renewed during the block. A service that is not `lasting`, as one on a free port, will not be
    started again with this address, and its leases go with it.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        generations: Generations,
        address: str,
        port: int,
        *,
        lasting: bool = True,
    ) -> None:
        config = settings.config
        self._settings, self._generations = settings, generations
        self._lasting = lasting
        self._coming: Path | None = None
        self._lease = Lease(
            host=platform.node(),
            address=address,
            port=port,
            pid=os.getpid(),
            exp_dir=config.exp_dir,
            env_file=settings.env_file,
            root=settings.kind.root,
            pin=settings.kind.pin,
            models={},
        )
        self._written: dict[Path, str] = {}
        self._warned: set[Path] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, daemon=True)

    def announce(self, coming: Path | None) -> None:
        """Write what is used now and, before it is touched, the model that is `coming`.

        A folder that cannot be written is warned of once, and served from all the same.
        """
        with self._lock:
            self._coming = coming
            self._renew()

    def __enter__(self) -> Self:
        self._remove_old()
        self.announce(None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say that the service stopped: what it would start with still counts as its own."""
        self._ended.set()
        with self._lock:
            self._coming = None
            self._lease = self._lease.model_copy(update={"stopped": True})
            self._renew()
            if not self._lasting:
                for path in self._written:
                    with suppress(OSError):
                        path.unlink()

    def _keep_renewing(self) -> None:
        while not self._ended.wait(REFRESH_S):
            with self._lock:
                if not self._ended.is_set():
                    try:
                        self._renew()
                    except Exception:
                        _log.exception("the leases could not be renewed")

    def _renew(self) -> None:
        folders: dict[Path, dict[str, str]] = {path.parent: {} for path in self._written}
        for model, why in self._used():
            folders.setdefault(model.parent / LEASE_FOLDER, {}).setdefault(model.name, why)
        for folder, models in folders.items():
            path = folder / self._lease.file_name
            if models:
                self._write(path, self._lease.model_copy(update={"models": models}))
            else:
                self._written.pop(path, None)
                with suppress(OSError):
                    path.unlink()

    def _used(self) -> Iterator[tuple[Path, str]]:
        """The models that must not be deleted while this service runs, or before its next start."""
        settings, current = self._settings, self._generations.current
        served = current.model.path if current else None
        found: list[tuple[Path | None, str]] = [(served, "served now")]
        with suppress(InputError):
            state = read_served_state(settings.config)
            found += state.needed() if state is not None else ()
        found.append((settings.pinned, f"pinned by {settings.kind.pin}"))
        found.append((self._coming, "about to be served"))
        for path, why in found:
            real = Path(os.path.realpath(path)) if path is not None else None
            if real is not None and not _is_gone(real.parent):
                yield real, why

    def _write(self, path: Path, lease: Lease) -> None:
        try:
            text = lease.to_json()
            if self._written.get(path) == text and _touch(path):
                return
            if path in self._written and _is_anothers(path, lease):
                return
            _make_folder(path.parent)
            write_text_atomic(path, text)
            self._written[path] = text
        except (StorageError, OSError, ValueError) as error:
            with suppress(OSError):
                os.utime(path, (0, 0))  # what stands in it no longer holds: ask
            if path not in self._warned:
                self._warned.add(path)
                _log.warning(
                    "no lease on the models of %s: %s. Whoever cleans that folder must list this "
                    "service under maintenance.also_serving",
                    path.parents[1],
                    error,
                )

    def _remove_old(self) -> None:
        """Remove leases of an earlier run on folders that this one takes no model from."""
        used = {model.parent / LEASE_FOLDER for model, _ in self._used()}
        with suppress(OSError):
            for folder in lease_folders(self._settings.config):
                if folder not in used:
                    with suppress(OSError):
                        (folder / self._lease.file_name).unlink()


def _is_gone(folder: Path) -> bool:
    """Whether there is surely no such folder; one that cannot be looked at may be there."""
    try:
        return not S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _touch(path: Path) -> bool:
    """Let the file server date the file anew, on a full disk too; False where it is gone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        os.pwrite(descriptor, b"{", 0)  # as it stands there already
    finally:
        os.close(descriptor)
    return True


def _is_anothers(path: Path, lease: Lease) -> bool:
    """Whether a service that was started meanwhile in the place of this one has taken it over."""
    with suppress(InputError):
        return Lease.read(path).pid != lease.pid
    return False


def _make_folder(folder: Path) -> None:
    """Make the folder of leases for whoever may write models."""
    with suppress(FileExistsError):
        folder.mkdir()
        with suppress(OSError):
            folder.chmod(folder.parent.stat().st_mode & 0o7777)
