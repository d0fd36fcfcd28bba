"""Verifying a release: every byte of it, and then whether its models load and answer rightly."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.formatting import now_text
from opslib.core.records import Part, Record
from opslib.core.sections import ExportSection
from opslib.ops.release.companions import manifest_name
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
from opslib.ops.release.signature import Demand, SignatureFacts, check_signature
from opslib.ops.release.sources import Archive, ArchiveFile, as_archive
from opslib.ops.release.unpack import Contents, UnpackLimits, unpack

Progress = Callable[[float, str], None]
SCRATCH_NAME = "verify"
_SHOWN = 3


class VerifiedModel(Part):
    """What a model of a release was seen to do: the stages it passed, its golden answers."""

    path: str
    sha256: str
    stages: tuple[str, ...]
    golden_images: int = 0
    golden_max_abs_diff: float | None = None


class ArchiveRecord(Record):
    """What records of an archive say alike; `models` is empty where loading them was left out, and
    `signature` is missing where nobody asked for one."""

    sha256: str
    content_id: str
    released_at_utc: str
    size_bytes: int
    content_bytes: int
    files: int
    models: tuple[VerifiedModel, ...] = ()
    signature: SignatureFacts | None = Field(default=None, exclude_if=lambda found: found is None)


class VerifyRecord(ArchiveRecord):
    """A release of which every byte was read and found to be as it says."""

    schema_name = "release-verify"

    archive: str
    verified_at_utc: str
    integrity_s: float
    models_s: float | None = None


@dataclass(frozen=True)
class ArchiveFacts:
    """An archive that is what it says: its manifest, the manifest's bytes and its own digest."""

    manifest: Manifest
    manifest_bytes: bytes
    sha256: str
    size_bytes: int
    signature: SignatureFacts | None = None

    def describe(self) -> dict[str, Any]:
        """Return what an `ArchiveRecord` says of it."""
        return {
            "sha256": self.sha256,
            "content_id": self.manifest.content_id,
            "released_at_utc": self.manifest.released_at_utc,
            "size_bytes": self.size_bytes,
            "content_bytes": self.manifest.size_bytes,
            "files": len(self.manifest.files),
            "signature": self.signature,
        }


def silent(_share: float, _what: str) -> None:
    """Be the progress of what nobody watches."""


def verify_release(
    found: Path | Archive,
    *,
    config: Config,
    load_models: bool = True,
    demand: Demand = "demanded",
    progress: Progress = silent,
) -> VerifyRecord:
    """Read every byte of a release, then load its models and ask for their golden answers.
    `demand`: whether it must be signed, see `signature.check_signature`. Raises ReleaseError: it
    is not as it says, or not signed as it must be; the message names the file where it can be
    known. ConfigError: whether it is signed as it must be cannot be known here.
    InputError: the archive cannot be read. StorageError: there is no room to unpack it for the
    trial load."""
    started = time.perf_counter()
    archive = as_archive(found)
    models: tuple[VerifiedModel, ...] = ()
    models_s = None
    with ExitStack() as stack:
        folder = None
        if load_models:
            folder = stack.enter_context(scratch_folder(config.releases_dir, SCRATCH_NAME))
        progress(0.0, "reading every byte")
        facts = examine(archive, config, demand=demand, folder=folder)
        read_s = time.perf_counter() - started
        if folder is not None:
            models = check_models(facts.manifest, folder, config, archive.file_name, progress)
            models_s = round(time.perf_counter() - started - read_s, 3)
    return VerifyRecord(
        **facts.describe(),
        archive=archive.file_name,
        verified_at_utc=now_text(),
        models=models,
        integrity_s=round(read_s, 3),
        models_s=models_s,
    )


def examine(
    found: Path | Archive,
    config: Config,
    *,
    demand: Demand,
    folder: Path | None = None,
    durable: bool = False,
) -> ArchiveFacts:
    """Read every byte of a release against its checksum and its manifest, then ask who signed that.
    `folder`: an empty folder
    that its files are written into; `durable`: have them on disk when this returns. Raises
    ReleaseError, ConfigError: see `verify_release`; InputError: the archive cannot be read."""
    archive = as_archive(found)
    with archive.open() as file:
        expected, data = archive.read_checksum(), archive.read_listing()
        name, copy = archive.file_name, _parse(data)
        facts = examine_open(
            file, name, config, expected, folder=folder, durable=durable, copy=copy
        )
    if data and data != facts.manifest_bytes:
        raise ReleaseError(
            f"{manifest_name(name)}: differs from the {MANIFEST_NAME} in the archive"
        )
    signed = check_signature(archive, facts.manifest, facts.manifest_bytes, config, demand)
    return replace(facts, signature=signed)


def examine_open(
    file: BinaryIO,
    name: str,
    config: Config,
    expected: str,
    *,
    folder: Path | None = None,
    durable: bool = False,
    copy: Manifest | None = None,
) -> ArchiveFacts:
    """Do as `examine` with an archive that `file` is open on and whose digest is `expected`.
    `copy`: the manifest kept beside it, which helps to name what is damaged."""
    limits, contents, problem = UnpackLimits.of(config), Contents(), None
    with GzipReader(file, threads=config.release.threads) as reader:
        try:
            contents = unpack(reader, limits, folder, durable=durable)
        except ReleaseError as error:
            problem = error
        sha256 = reader.finish()
    if problem is not None:
        if isinstance(problem.__cause__, DamagedGzipError):
            names = _name_damage(file, limits, copy)
            raise ReleaseError(f"{name}: {f'damaged: {names}' if names else problem}") from problem
        fits = " (its .sha256 fits: it was made like this)" if sha256 == expected else ""
        raise ReleaseError(f"{name}: {problem}{fits}") from problem
    manifest, data = _check_contents(contents, name)
    if sha256 != expected:
        raise ReleaseError(
            f"{name}.sha256: says {expected[:12]}…, the archive is {sha256[:12]}…, though each "
            "file in it is as listed: the checksum, or bytes around the files, were changed"
        )
    return ArchiveFacts(manifest, data, sha256, file.tell())


def read_manifest(archive: Path) -> Manifest:
    """Return the manifest in an archive, which means reading all of it. Raises ReleaseError: there
    is none, or the archive is damaged; InputError: it cannot be read."""
    with ArchiveFile(archive).open() as file, GzipReader(file) as reader:
        return _find_manifest(unpack(reader, UnpackLimits()), archive.name)


def check_models(
    manifest: Manifest, folder: Path, config: Config, where: str, tell: Progress
) -> tuple[VerifiedModel, ...]:
    """Take every model of an unpacked release through the model check, each in its own child.
    Raises ReleaseError: one failed; the message names it and the stage."""
    found = []
    for number, model in enumerate(manifest.models):
        tell((number + 1) / (len(manifest.models) + 1), f"loading {model.path}")
        found.append(check_released(manifest, model, folder, config, where))
    return tuple(found)


def check_released(
    manifest: Manifest, model: ModelSummary, folder: Path, config: Config, where: str
) -> VerifiedModel:
    """Take one model of an unpacked release through the model check, as its kind asks for. Raises
    ReleaseError: it failed; the message names it and the stage."""
    from opslib.inference.causes import ModelCheckError
    from opslib.inference.checks import check_model
    from opslib.inference.find_model import find_card
    from opslib.inference.preprocess import load_preprocessor

    unpacked = config.model_copy(update={"export": ExportSection(out_dir=folder / EXPORT_FOLDER)})
    path = folder / model.path
    try:
        check = check_model(
            path,
            find_card(unpacked, path),
            preprocess=load_preprocessor(config.preprocess.function, config.code_root).run_checked,
            img_size=config.preprocess.img_size,
            limits=config.reload,
            contract=manifest.contract_of(model.path),
        )
    except (ModelCheckError, InputError) as error:
        stage = f"stage {error.stage}: " if isinstance(error, ModelCheckError) else ""
        said = str(error).replace(f"{folder}/", "")
        raise ReleaseError(f"{where}: {model.path}: {stage}{said}") from error
    golden = check.golden
    return VerifiedModel(
        path=model.path,
        sha256=model.sha256,
        stages=check.stages,
        golden_images=golden.count if golden else 0,
        golden_max_abs_diff=golden.max_abs_diff if golden else None,
    )


def _parse(data: bytes) -> Manifest | None:
    try:
        return parse_manifest(data, "")
    except ReleaseError:
        return None


def _find_manifest(contents: Contents, where: str) -> Manifest:
    if MANIFEST_NAME not in contents.kept:
        raise ReleaseError(f"{where}: holds no {MANIFEST_NAME}")
    return parse_manifest(contents.kept[MANIFEST_NAME], where)


def _check_contents(contents: Contents, where: str) -> tuple[Manifest, bytes]:
    manifest = _find_manifest(contents, where)
    if contents.entries[-1].path != MANIFEST_NAME:
        raise ReleaseError(f"{where}: {MANIFEST_NAME} is not the last file")
    found = {entry.path: entry for entry in contents.entries if entry.path != MANIFEST_NAME}
    check_manifest(manifest, found, where)
    version = version_text(manifest.released_at_utc, manifest.git_sha).encode()
    if contents.kept.get(VERSION_NAME) != version:
        raise ReleaseError(f"{where}: {VERSION_NAME} differs from {MANIFEST_NAME}")
    return manifest, contents.kept[MANIFEST_NAME]


def _name_damage(file: BinaryIO, limits: UnpackLimits, copy: Manifest | None) -> str | None:
    """The files of a damaged archive whose bytes are not those listed, read on past the damage; or
    None where that cannot be known. `copy` serves where the manifest inside is damaged too."""
    file.seek(0)
    with GzipReader(file, lenient=True) as reader:
        try:
            contents = unpack(reader, limits)
        except ReleaseError:
            return None
    inside = _parse(contents.kept.get(MANIFEST_NAME, b""))
    manifest = inside or copy
    if manifest is None:
        return None
    found = {entry.path: entry for entry in contents.entries}
    wrong = [entry.path for entry in manifest.files if found.get(entry.path) != entry]
    if not wrong and inside is None:
        wrong = [MANIFEST_NAME]
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return ", ".join(wrong[:_SHOWN]) + more or None
