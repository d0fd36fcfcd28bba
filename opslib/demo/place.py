"""Putting a built demo in its place: aside first, then moved; nothing of anyone else's deleted."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import BusyError, ConfigError, InputError, StorageError, storage_errors
from opslib.core.files import make_hidden_folder, reveal_name
from opslib.core.records import Record
from opslib.serving.leases import find_leases
from opslib.serving.reachable import ask_services

MARKER = ".demo.json"
_ASIDE_MARK = ".demo-aside"


class DemoMarker(Record):
    """What makes a folder the demo's own: the files it put there, relative to the folder."""

    schema_name = "demo-folder"

    built_at_utc: str
    facts: dict[str, str | int | float] = {}
    files: tuple[str, ...] = ()


def demo_folders(config: Config) -> tuple[Path, ...]:
    """The folders a demo fills, links resolved: images, exports where apart, experiment last.
    Raises ConfigError: one lies inside another, so that they cannot be replaced one by one."""
    exp_dir, data_root = config.exp_dir.resolve(), config.data_root.resolve()
    export_dir = config.export_dir.resolve()
    apart = () if export_dir.is_relative_to(exp_dir) else (export_dir,)
    folders = (data_root, *apart, exp_dir)
    for one, other in permutations(folders, 2):
        if one.is_relative_to(other):
            where = f"{one} is in {other}" if one != other else f"{one} is named twice"
            raise ConfigError(f"paths: the demo needs separate folders; {where}")
    return folders


def read_marker(folder: Path) -> DemoMarker | None:
    """The marker of a folder the demo made, or None where there is none or it is damaged."""
    try:
        return DemoMarker.read(folder / MARKER)
    except InputError:
        return None


def refuse_foreign(folders: Sequence[Path]) -> None:
    """Make sure that each folder is missing, without files, or the demo's own. Raises ConfigError:
    one holds something else; the message names it."""
    for folder in folders:
        if not folder.exists() or read_marker(folder) is not None:
            continue
        if not folder.is_dir():
            raise ConfigError(f"{folder}: expected a folder for the demo, found a file")
        found = next((path for path in folder.rglob("*") if not path.is_dir()), None)
        if found is not None:
            foreign = f"{found.relative_to(folder)}, which the demo did not make"
            remedy = "name an empty folder in config.yaml for the demo"
            raise ConfigError(f"{folder}: holds {foreign}; {remedy}")


def refuse_served(config: Config) -> None:
    """Make sure that no service uses a model of the demo, which building it anew deletes. Raises
    BusyError: one does; StorageError: one is there that does not say."""
    remedy = "stop that service, or leave the demo as it is"
    try:
        export_dir = config.export_dir.resolve()
        for live in ask_services(config):
            if live.path is not None and live.path.resolve().is_relative_to(export_dir):
                raise BusyError(f"the demo is in use: {live.note}; {remedy}")
        for found in find_leases(config):
            if not found.lease.stopped and not found.may_be_outdated():
                raise BusyError(f"the demo is in use, as {found.path} says; {remedy}")
    except InputError as error:
        raise StorageError(f"it is not known whether the demo is in use: {error}") from error


@contextmanager
def build_aside(folders: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Yield an empty folder beside each of `folders`; all are gone when the block ends. What an
    earlier build left behind when it was killed is removed first."""
    asides: dict[Path, Path] = {}
    try:
        with storage_errors("prepare the demo's folders"):
            for folder in folders:
                folder.parent.mkdir(parents=True, exist_ok=True)
                for stale in folder.parent.iterdir():
                    ours = reveal_name(stale.name, "tmp") == folder.name
                    if ours and (stale / _ASIDE_MARK).is_file():
                        shutil.rmtree(stale)
                asides[folder] = make_hidden_folder(folder)
                (asides[folder] / _ASIDE_MARK).touch()
                (asides[folder] / "new").mkdir()
        yield {folder: aside / "new" for folder, aside in asides.items()}
    finally:
        for aside in asides.values():
            shutil.rmtree(aside, ignore_errors=True)


def move_in(new: Path, folder: Path, marker: DemoMarker) -> None:
    """Let `new` take the place of `folder`, which is missing, without files, or the demo's own.
    Files in `folder` that the demo did not make (reports, releases, logs) are kept. `marker` is
    completed with the files of `new` and written into it."""
    with storage_errors(f"put the demo at {folder}"):
        files = sorted(path for path in new.rglob("*") if not path.is_dir())
        names = tuple(path.relative_to(new).as_posix() for path in files)
        marker.model_copy(update={"files": names}).write(new / MARKER)
        if not folder.exists():
            new.rename(folder)
            return
        old = new.with_name("old")
        made = read_marker(folder)
        folder.rename(old)
        try:
            _keep_others(old, new, set(made.files if made else ()) | {MARKER})
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise


def _keep_others(old: Path, new: Path, made: set[str]) -> None:
    """Link what others put into `old` into `new` under the same name."""
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old)
        target = new / name
        if path.is_dir() or name.as_posix() in made or target.exists() or target.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            target.hardlink_to(path)
