"""Verifying a release: every byte of it, and then whether its models load and answer rightly."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.formatting import utc_now
from opslib.core.records import Part, Record
from opslib.core.sections import ExportSection
from opslib.ops.release.companions import (
    checksum_path,
    manifest_path,
    open_regular,
    parse_checksum,
    read_companion,
)
from opslib.ops.release.diagnose import name_damage
from opslib.ops.release.inflate import DamagedGzipError, GzipReader
from opslib.ops.release.manifest import (
    EXPORT_FOLDER,
    MANIFEST_NAME,
    VERSION_NAME,
    Manifest,
    ModelSummary,
    ReleaseError,
    check_manifest,
    parse_manifest,
    version_text,
)
from opslib.ops.release.scratch import scratch_folder
from opslib.ops.release.unpack import Contents, Limits, unpack

Progress = Callable[[float, str], None]
SCRATCH_NAME = "verify"
_MIB = 1 << 20


class VerifiedModel(Part):
    """What a model of a release was seen to do: the stages it passed, its golden answers."""

    path: str
    sha256: str
    stages: tuple[str, ...]
    golden_images: int = 0
    golden_max_abs_diff: float | None = None


class VerifyRecord(Record):
    """A release of which every byte was read and found to be as it says.

    `models` is empty where loading them was left out.
    """

    schema_name = "release-verify"

    archive: str
    sha256: str
    content_id: str
    released_at_utc: str
    verified_at_utc: str
    size_bytes: int
    content_bytes: int
    files: int
    models: tuple[VerifiedModel, ...] = ()
    integrity_s: float
    models_s: float | None = None


@dataclass(frozen=True)
class Examined:
    """An archive that is what it says: its manifest, the manifest's bytes and its own digest."""

    manifest: Manifest
    manifest_bytes: bytes
    sha256: str
    size_bytes: int


def verify_release(
    path: Path, *, config: Config, load_models: bool = True, progress: Progress | None = None
) -> VerifyRecord:
    """Read every byte of a release, then load its models and ask for their golden answers.

    Raises:
        ReleaseError: it is not as it says; the message names the file where it can be known.
        InputError: the archive cannot be read.
        StorageError: there is no room to unpack it for the trial load.
    """
    tell = progress or (lambda _share, _what: None)
    started = time.perf_counter()
    if not load_models:
        tell(0.0, "reading every byte")
        examined = examine(path, config)
        return record_of(path, examined, (), time.perf_counter() - started, None)
    with scratch_folder(config.releases_dir, SCRATCH_NAME) as folder:
        tell(0.0, "reading every byte")
        examined = examine(path, config, folder=folder)
        read_s = time.perf_counter() - started
        models = check_models(examined.manifest, folder, config, path.name, tell)
    total_s = time.perf_counter() - started
    return record_of(path, examined, models, read_s, total_s - read_s)


def record_of(
    path: Path,
    examined: Examined,
    models: tuple[VerifiedModel, ...],
    integrity_s: float,
    models_s: float | None,
) -> VerifyRecord:
    """Return the record of a verification that went well."""
    manifest = examined.manifest
    return VerifyRecord(
        archive=path.name,
        sha256=examined.sha256,
        content_id=manifest.content_id,
        released_at_utc=manifest.released_at_utc,
        verified_at_utc=utc_now().isoformat(timespec="seconds"),
        size_bytes=examined.size_bytes,
        content_bytes=manifest.size_bytes,
        files=len(manifest.files),
        models=models,
        integrity_s=round(integrity_s, 3),
        models_s=None if models_s is None else round(models_s, 3),
    )


def examine(
    path: Path, config: Config, *, folder: Path | None = None, durable: bool = False
) -> Examined:
    """Read every byte of a release against its checksum and its manifest.

    Args:
        folder: an empty folder that its files are written into.
        durable: have them on disk when this returns.

    Raises:
        ReleaseError: see `verify_release`.
        InputError: the archive cannot be read.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        expected = read_checksum(path)
        copy, data = manifest_path(path), b""
        with suppress(OSError):
            data = read_companion(copy)
        examined = examine_open(
            file, path.name, config, expected, folder=folder, durable=durable, copy=_parse(data)
        )
    if data and data != examined.manifest_bytes:
        raise ReleaseError(f"{copy}: differs from the {MANIFEST_NAME} in the archive")
    return examined


def examine_open(
    file: BinaryIO,
    name: str,
    config: Config,
    expected: str,
    *,
    folder: Path | None = None,
    durable: bool = False,
    copy: Manifest | None = None,
) -> Examined:
    """Do as `examine` with an archive that `file` is open on and whose digest is `expected`.

    Args:
        copy: the manifest kept beside it, which helps to name what is damaged.
    """
    contents, problem = Contents(), None
    with GzipReader(file, threads=config.release.threads) as reader:
        try:
            contents = unpack(reader, Limits.of(config), folder, durable=durable)
        except ReleaseError as error:
            problem = error
        sha256 = reader.finish()
    if problem is not None:
        if isinstance(problem.__cause__, DamagedGzipError):
            names = name_damage(file, Limits.of(config), copy)
            raise ReleaseError(f"{name}: {f'damaged: {names}' if names else problem}") from problem
        fits = " (its .sha256 fits: it was made like this)" if sha256 == expected else ""
        raise ReleaseError(f"{name}: {problem}{fits}") from problem
    manifest, data = check_contents(contents, name)
    if sha256 != expected:
        raise ReleaseError(
            f"{name}.sha256: says {expected[:12]}…, the archive is {sha256[:12]}…, though each "
            "file in it is as listed: the checksum, or bytes around the files, were changed"
        )
    return Examined(manifest, data, sha256, file.tell())


def _parse(data: bytes) -> Manifest | None:
    try:
        return parse_manifest(data, "")
    except ReleaseError:
        return None


def check_contents(contents: Contents, where: str) -> tuple[Manifest, bytes]:
    """Return the manifest, and its bytes, of an archive whose contents it describes.

    Raises:
        ReleaseError: it does not, or there is none, or it is not the last member.
    """
    data = contents.kept.get(MANIFEST_NAME)
    if data is None:
        raise ReleaseError(f"{where}: holds no {MANIFEST_NAME}")
    if contents.entries[-1].path != MANIFEST_NAME:
        raise ReleaseError(f"{where}: {MANIFEST_NAME} is not the last file")
    manifest = parse_manifest(data, where)
    found = {entry.path: entry for entry in contents.entries if entry.path != MANIFEST_NAME}
    check_manifest(manifest, found, where)
    version = version_text(manifest.released_at_utc, manifest.git_sha).encode()
    if contents.kept.get(VERSION_NAME) != version:
        raise ReleaseError(f"{where}: {VERSION_NAME} differs from {MANIFEST_NAME}")
    return manifest, data


def check_models(
    manifest: Manifest, folder: Path, config: Config, where: str, tell: Progress
) -> tuple[VerifiedModel, ...]:
    """Take every model of an unpacked release through the model check, each in its own child.

    Raises:
        ReleaseError: one failed; the message names it and the stage.
    """
    found = []
    for number, model in enumerate(manifest.models):
        tell((number + 1) / (len(manifest.models) + 1), f"loading {model.path}")
        found.append(check_released(manifest, model, folder, config, where))
    return tuple(found)


def check_released(
    manifest: Manifest, model: ModelSummary, folder: Path, config: Config, where: str
) -> VerifiedModel:
    """Take one model of an unpacked release through the model check, as its kind asks for.

    Raises:
        ReleaseError: it failed; the message names it and the stage.
    """
    from opslib.inference.causes import ModelCheckError
    from opslib.inference.checks import check_model
    from opslib.inference.find_model import find_card
    from opslib.inference.preprocess import load_preprocessor
    from opslib.inference.trial import TrialLimits

    section, preprocess = config.reload, config.preprocess
    memory = section.trial_memory_mb
    unpacked = config.model_copy(update={"export": ExportSection(out_dir=folder / EXPORT_FOLDER)})
    path = folder / model.path
    try:
        check = check_model(
            path,
            find_card(unpacked, path),
            preprocess=load_preprocessor(preprocess.function, config.code_root).run_checked,
            img_size=preprocess.img_size,
            limits=TrialLimits(section.trial_timeout_s, memory * _MIB if memory else None),
            contract=find_contract(manifest, model),
        )
    except ModelCheckError as error:
        said = str(error).replace(f"{folder}/", "")
        raise ReleaseError(f"{where}: {model.path}: stage {error.stage}: {said}") from error
    except InputError as error:
        said = str(error).replace(f"{folder}/", "")
        raise ReleaseError(f"{where}: {model.path}: {said}") from error
    golden = check.golden
    return VerifiedModel(
        path=model.path,
        sha256=model.sha256,
        stages=check.stages,
        golden_images=golden.count if golden else 0,
        golden_max_abs_diff=golden.max_abs_diff if golden else None,
    )


def find_contract(manifest: Manifest, model: ModelSummary) -> Literal["classifier", "any"]:
    """Return what a released model must be: what its kind asked for when it was released; of no
    kind: any; in a release without kinds, a classifier, as all were then."""
    if not manifest.kinds:
        return "classifier"
    kind = manifest.kind_of(model.path)
    return kind.contract if kind is not None else "any"


def read_checksum(archive: Path) -> str:
    """Return the digest that the file beside the archive states.

    Raises:
        ReleaseError: it is missing, names another archive, or is not as `sha256sum` writes it.
    """
    path = checksum_path(archive)
    try:
        text = read_companion(path)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_checksum(text, archive)


def read_manifest(archive: Path) -> Manifest:
    """Return the manifest in an archive, which means reading all of it.

    Raises:
        ReleaseError: there is none, or the archive is damaged.
        InputError: it cannot be read.
    """
    try:
        file = open_regular(archive)
    except OSError as error:
        raise InputError(f"{archive}: cannot be read: {error.strerror}") from error
    with file, GzipReader(file) as reader:
        contents = unpack(reader, Limits())
    data = contents.kept.get(MANIFEST_NAME)
    if data is None:
        raise ReleaseError(f"{archive.name}: holds no {MANIFEST_NAME}")
    return parse_manifest(data, archive.name)
