"""Making a release: collect, look for secrets, pack, verify what was packed, then give it its name.

The archive takes its name last, when its checksum and the copy of its manifest already lie beside
it and all are on disk: an archive that can be seen is whole. A crash before that leaves a hidden
file, which the next release removes.
"""

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from opslib.core.config import Config
from opslib.core.errors import ConfigError, InputError, ParameterError
from opslib.core.files import ensure_writable, open_atomic, write_bytes_atomic, write_text_atomic
from opslib.core.formatting import format_bytes, stamp, utc_now
from opslib.core.lineage import Lineage, git_sha, record_lineage
from opslib.core.locks import hold_lock
from opslib.core.secrets import live_secrets
from opslib.ops.release.collect import collect
from opslib.ops.release.companions import (
    ARCHIVE_SUFFIX,
    checksum_path,
    manifest_path,
    release_stamp,
    signature_path,
)
from opslib.ops.release.manifest import (
    BillSummary,
)
from opslib.ops.release.opened import Collection
from opslib.ops.release.packing import pack
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.scratch import ensure_room, scratch_folder
from opslib.ops.release.secrets_scan import scan_files
from opslib.ops.release.signature import (
    SIGNERS_KEY,
    SignatureFacts,
    describe_key,
    identify,
    judge,
    sign,
)
from opslib.ops.release.store import LOCK_NAME, sweep_leftovers
from opslib.ops.release.stripping import check_alike, describe_left, look_through, strip_models
from opslib.ops.release.verify import (
    SCRATCH_NAME,
    ArchiveFacts,
    ArchiveRecord,
    Progress,
    VerifiedModel,
    check_models,
    examine_open,
    silent,
)

EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
_SPARE_BYTES = 16 << 20
_SAME_SECOND_S = 0.05


class ReleaseRecord(ArchiveRecord):
    """A release that was made: where it is, what it is, and what making it took. `gives_away` says
    of each model what it still tells of where it was made; nothing of clean ones."""

    schema_name = "release"

    path: Path
    git_sha: str
    main: str
    bill: BillSummary | None = None
    verified: bool
    pack_s: float
    verify_s: float | None = None
    total_s: float
    notes: tuple[str, ...] = ()
    gives_away: tuple[str, ...] = ()
    lineage: Lineage


def build_release(
    config: Config, request: ReleaseRequest | None = None, progress: Progress = silent
) -> ReleaseRecord:
    """Make a release and return its record, which is also kept in `{exp_dir}/reports`. Raises
    ModelError, InputError: something that belongs into it is missing, broken or unreadable.
    SecretLeakError: a text file holds a secret; the message names file and line. StorageError:
    there is no room, or the folder cannot be written. BusyError: another release is under way.
    ParameterError: it would have to be signed, and no key is named; InputError, ConfigError: the
    key does not sign. ReleaseError: what was packed does not verify, or is signed by a key that
    `release.allowed_signers` does not accept, or a copy without metadata is not shown to answer
    alike; nothing is kept of it."""
    request = request or ReleaseRequest()
    if request.strip_metadata:  # a copy that was not asked is of no use
        request = replace(request, verify=True, load_models=True)
    key = _pick_key(config, request)
    folder = config.resolve(request.out) if request.out else config.releases_dir
    ensure_writable(folder)
    ensure_writable(config.records_dir)
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(hold_lock(folder / LOCK_NAME, "making a release"))
        sweep_leftovers(folder)
        progress(0.0, "collecting")
        found = stack.enter_context(collect(config, request))
        secrets = live_secrets(config.root, request.environment)
        if config.code_root is not None:
            secrets |= live_secrets(config.code_root, {})
        scan_files(found.files, secrets)
        unpacked = request.verify and request.load_models
        # Incompressible content is reckoned with, and that it is unpacked again to be verified.
        needed = found.size_bytes * (2 if unpacked else 1) + found.size_bytes // 100 + _SPARE_BYTES
        if request.strip_metadata:
            needed += sum(one.model.size for one in found.models)
        made = f"making and verifying a release of {format_bytes(found.size_bytes)}"
        ensure_room(folder, needed, made)
        tellings = look_through(found)
        if request.strip_metadata:
            found = strip_models(found, tellings, folder, stack)
        sha = git_sha(config.code_root or config.root)
        moment = _pick_moment(folder, sha)
        archive = _archive(folder, moment, sha)
        models: tuple[VerifiedModel, ...] = ()
        verify_s = None
        with open_atomic(archive) as sink:
            packed, bill = pack(config, found, sink, folder, moment, sha, progress)
            pack_s = time.perf_counter() - started
            if request.verify:
                models = _verify(sink, packed, archive, config, request, found, progress)
                verify_s = round(time.perf_counter() - started - pack_s, 3)
            signature = b""
            if key is not None:
                progress(0.95, f"signing with {key}")
                signature, signed = _sign(packed, archive.name, config, key)
                packed = replace(packed, signature=signed)
            elif config.release.allowed_signers is not None:
                packed = replace(packed, signature=SignatureFacts(problem="made with --unsigned"))
            progress(0.95, "writing to disk")
            if signature:
                write_bytes_atomic(signature_path(archive), signature)
            write_text_atomic(checksum_path(archive), f"{packed.sha256}  {archive.name}\n")
            write_bytes_atomic(manifest_path(archive), packed.manifest_bytes)
    record = ReleaseRecord(
        **packed.describe(),
        path=archive,
        git_sha=sha,
        main=packed.manifest.main,
        bill=bill,
        models=models,
        verified=request.verify,
        pack_s=round(pack_s, 3),
        verify_s=verify_s,
        total_s=round(time.perf_counter() - started, 3),
        notes=packed.manifest.notes,
        gives_away=describe_left(found, tellings),
        lineage=record_lineage(),
    )
    record.write(release_record_path(config, record))
    return record


def _pick_key(config: Config, request: ReleaseRequest) -> Path | None:
    """The key to sign with, None for none, refused before anything is packed."""
    given = request.sign or config.release.signing_key
    if request.unsigned or given is None:
        if config.release.allowed_signers is not None and not request.unsigned:
            remedy = "name a key with --sign or release.signing_key, or say --unsigned"
            raise ParameterError(
                f"{SIGNERS_KEY} is set: an unsigned release is of no use; {remedy}"
            )
        return None
    key = config.resolve(given)
    describe_key(key)
    return key


def _sign(
    packed: ArchiveFacts, name: str, config: Config, key: Path
) -> tuple[bytes, SignatureFacts]:
    """The signature of what was packed, which is judged as whoever restores it will."""
    signature = sign(packed.manifest_bytes, key)
    if config.release.allowed_signers is not None:
        return signature, judge(signature, packed.manifest, packed.manifest_bytes, name, config)
    return signature, SignatureFacts(key=identify(signature, packed.manifest_bytes, name))


def release_record_path(config: Config, record: ReleaseRecord) -> Path:
    """Return where a release's record is kept: `{exp_dir}/reports/release_<UTC>.json`."""
    return config.records_dir / f"release_{release_stamp(record.released_at_utc)}.json"


def _pick_moment(folder: Path, sha: str) -> datetime:
    """The time that the release is made at: now, or what SOURCE_DATE_EPOCH says."""
    given = os.environ.get(EPOCH_VARIABLE)
    if given is None:
        while _archive(folder, now := utc_now().replace(microsecond=0), sha).exists():
            time.sleep(_SAME_SECOND_S)
        return now
    moment = None
    with suppress(ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(int(given), UTC)
    if moment is None or moment.timestamp() < 0:
        raise ConfigError(f"{EPOCH_VARIABLE}: got {given!r}: expected whole seconds since 1970")
    archive = _archive(folder, moment, sha)
    if archive.exists():
        raise InputError(f"{archive}: is there already; {EPOCH_VARIABLE} names it")
    return moment


def _archive(folder: Path, moment: datetime, sha: str) -> Path:
    return folder / f"release-{stamp(moment)}-{sha}{ARCHIVE_SUFFIX}"


def _verify(
    sink: BinaryIO,
    packed: ArchiveFacts,
    archive: Path,
    config: Config,
    request: ReleaseRequest,
    found: Collection,
    tell: Progress,
) -> tuple[VerifiedModel, ...]:
    """Read the finished archive back, while it still has no name, and load its models."""
    tell(0.7, "verifying: reading every byte")

    def step(share: float, what: str) -> None:
        tell(0.8 + 0.15 * share, f"verifying: {what}")

    nameless = Path(f"/proc/self/fd/{sink.fileno()}")
    with ExitStack() as stack:
        file = stack.enter_context(nameless.open("rb", buffering=0))
        if not request.load_models:
            examine_open(file, archive.name, config, packed.sha256)
            return ()
        unpacked = stack.enter_context(scratch_folder(archive.parent, SCRATCH_NAME))
        facts = examine_open(file, archive.name, config, packed.sha256, folder=unpacked)
        checked = check_models(facts.manifest, unpacked, config, archive.name, step)
        check_alike(found, unpacked, config)
        return checked
