"""Who made a release: an OpenSSH signature over the bytes of its manifest, which lists the digest
of every file, the time and the commit. `ssh-keygen` makes and judges it; nothing of that is ours.

What is judged is what the archive holds, not how it is compressed. A key is valid or not at the
time that was signed; one that is revoked never is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from opslib.core.clock import parse_moment
from opslib.core.config import Config
from opslib.core.errors import ConfigError, InputError
from opslib.core.formatting import now_text, stamp
from opslib.core.lineage import Lineage, record_lineage
from opslib.core.records import Part, Record
from opslib.ops.release.companions import (
    ARCHIVE_SUFFIX,
    read_companion,
    release_stamp,
    signature_name,
)
from opslib.ops.release.manifest import MANIFEST_NAME, Manifest, ReleaseError, show_name
from opslib.ops.release.sources import Archive

NAMESPACE = "pillops-release"
PROGRAM = "ssh-keygen"
SIGNERS_KEY, REVOKED_KEY = "release.allowed_signers", "release.revoked_keys"
# Whether a signature is asked for where `release.allowed_signers` is set.
Demand = Literal["demanded", "overridden", "not asked"]
_JUDGE_S = 30.0
_SIGN_S = 300.0  # a person may have to type a passphrase, or touch a key
_BEGIN = b"-----BEGIN SSH SIGNATURE-----"
_KEY = re.compile(r"\bwith (\S+ key \S+)")
_ASKED = "Enter passphrase: "  # without a terminal it stands before what came of it
_NO_REASON = ("@", "Signing data", "No principal matched")
_TIME_WORDS = ("key has expired", "key is not yet valid")
_Done = subprocess.CompletedProcess[bytes]


class SignatureFacts(Part):
    """Whose signature a release has: `principal` as `release.allowed_signers` names it, `key` by
    type and fingerprint. `problem`: why it was not accepted, where `--unsigned` took it anyway."""

    principal: str | None = None
    key: str | None = None
    problem: str | None = None

    def describe(self) -> str:
        """Return it in a few words."""
        if self.problem is not None:
            return f"taken unsigned: {self.problem}"
        return f"signed by {self.principal or 'nobody who is known here'}, {self.key}"


class UnsignedRecord(Record):
    """A release that `--unsigned` took although its signature was not accepted, and why not."""

    schema_name = "release-unsigned"

    release: str
    content_id: str
    taken_at_utc: str
    problem: str
    lineage: Lineage


def describe_key(key: Path) -> str:
    """Return the type and fingerprint of a key to sign with, private or public. Raises InputError:
    it is none, or cannot be read; ConfigError: there is no ssh-keygen."""
    done = _run("-l", "-f", str(key))
    if done.returncode:
        raise InputError(f"{key}: no key to sign with: {_reason(done)}")
    return show_name(" ".join(_text(done.stdout).split()))


def sign(data: bytes, key: Path) -> bytes:
    """Return the signature of the bytes of a manifest. `key`: a private key, or a public one whose
    private half an agent holds. Raises InputError: it cannot sign; ConfigError: there is no
    ssh-keygen, or it does not answer."""
    done = _run("-Y", "sign", "-f", str(key), "-n", NAMESPACE, given=data, limit_s=_SIGN_S)
    if done.returncode or not done.stdout.startswith(_BEGIN):
        remedy = "a key with a passphrase has to be in an agent (ssh-add) where nobody is asked"
        raise InputError(f"{key}: does not sign: {_reason(done)}; {remedy}")
    return done.stdout


def identify(signature: bytes, data: bytes, name: str) -> str:
    """Return the key, by type and fingerprint, that made a signature of these bytes, whoever's it
    is. `name`: the archive's. Raises ReleaseError: it is no such signature."""
    with _as_file(signature) as (path, number):
        command = ("-Y", "check-novalidate", "-n", NAMESPACE, "-s", path)
        done = _run(*command, given=data, files=(number,))
    if done.returncode == 0:
        return _key_of(done)
    said, beside = _reason(done), signature_name(name)
    if "namespace" in said:
        raise ReleaseError(f"{beside}: was made for another purpose than {NAMESPACE}")
    if "incorrect signature" in said:
        changed = "one of them was changed, or is another release's"
        raise ReleaseError(f"{beside}: does not fit the {MANIFEST_NAME} of {name}: {changed}")
    raise ReleaseError(f"{beside}: no signature: {said}")


def check_signature(
    archive: Archive, manifest: Manifest, data: bytes, config: Config, demand: Demand
) -> SignatureFacts | None:
    """Return whose signature a release has, or None where `release.allowed_signers` is not set or
    nobody asks. `data`: the manifest's bytes in the archive. What `overridden` takes all the same
    is recorded in `{exp_dir}/reports`. Raises ReleaseError, ConfigError: see `judge`."""
    if config.release.allowed_signers is None or demand == "not asked":
        return None
    try:
        return judge(archive.read_signature(), manifest, data, archive.file_name, config)
    except (ReleaseError, ConfigError) as error:
        if demand == "demanded":
            raise
        problem = str(error)
    name = archive.file_name.removesuffix(ARCHIVE_SUFFIX)
    record = UnsignedRecord(
        release=name,
        content_id=manifest.content_id,
        taken_at_utc=now_text(),
        problem=problem,
        lineage=record_lineage(),
    )
    record.write(config.records_dir / f"unsigned_{stamp()}_{name}.json")
    return SignatureFacts(problem=problem)


def judge(
    signature: bytes, manifest: Manifest, data: bytes, name: str, config: Config
) -> SignatureFacts:
    """Return who of `release.allowed_signers` signed the bytes of a manifest. `name`: that of its
    archive, which must be the signed one. Raises ReleaseError: nobody, nobody known, outside the
    key's validity, with a revoked key, or for another release; ConfigError: it cannot be judged, as
    a list of keys or ssh-keygen is missing or no good."""
    signers, revoked = _find_lists(config)
    if not signature:
        lost = f"unsigned: no {signature_name(name)} that can be read"
        raise ReleaseError(f"{name}: {lost}, and {SIGNERS_KEY} is set")
    when = f"-Overify-time={_local_time(manifest, name)}"
    with _as_file(signature) as (path, number):

        def verify(principal: str, *more: str) -> _Done:
            command = ("-Y", "verify", "-n", NAMESPACE, "-s", path, "-f", signers, when)
            return _run(*command, "-I", principal, *more, given=data, files=(number,))

        asked = _run("-Y", "find-principals", "-s", path, "-f", signers, when, files=(number,))
        principals = [] if asked.returncode else _text(asked.stdout).splitlines()
        refused = [asked]
        for principal in principals:
            done = verify(principal, *(("-r", revoked) if revoked else ()))
            if done.returncode == 0:
                _check_name(manifest, name)
                return SignatureFacts(principal=show_name(principal), key=_key_of(done))
            refused.append(done)
        key = identify(signature, data, name)
        if revoked and any(verify(one).returncode == 0 for one in principals):
            raise ReleaseError(f"{name}: signed by {key}, which is revoked ({REVOKED_KEY})")
    raise _explain(refused, key, name, signers)


def _local_time(manifest: Manifest, name: str) -> str:
    """When the release was made, in local time: older builds of ssh-keygen know no other, and all
    read the times in a list of signers so."""
    moment = parse_moment(manifest.released_at_utc)
    if moment is not None:
        with suppress(OverflowError, OSError, ValueError):
            return f"{moment.astimezone():%Y%m%d%H%M%S}"
    raise ReleaseError(f"{name}: released_at_utc in its {MANIFEST_NAME} is no time")


def _check_name(manifest: Manifest, name: str) -> None:
    signed = f"release-{release_stamp(manifest.released_at_utc)}-{manifest.git_sha}"
    if name != f"{signed}{ARCHIVE_SUFFIX}":
        raise ReleaseError(f"{name}: what was signed is {signed}: another release under this name")


def _explain(refused: list[_Done], key: str, name: str, signers: str) -> ReleaseError | ConfigError:
    """Why a signature that fits its manifest is not accepted, from what ssh-keygen said of it."""
    lines = [line for done in refused for line in _text(done.stderr).splitlines()]
    about = [line for line in lines if re.match(rf"{re.escape(signers)}:\d+: ", line)]
    for line in about:
        if any(word in line for word in _TIME_WORDS):
            said = line.partition(": ")[2]
            return ReleaseError(f"{name}: signed by {key} outside its validity: {said}")
    if len(refused) > 1:
        said = "; ".join(dict.fromkeys(line.partition(": ")[2] for line in about))
        return ReleaseError(f"{name}: signed by {key}, which may not: {said or 'not accepted'}")
    if about:
        return ConfigError(f"{SIGNERS_KEY}: {about[0]}")
    return ReleaseError(f"{name}: signed by {key}, which {SIGNERS_KEY} does not name")


def _find_lists(config: Config) -> tuple[str, str | None]:
    """Return the paths of the keys that may sign and of the revoked ones, once both can be used: an
    empty list of revoked keys would revoke none."""
    signers = config.resolve(config.release.allowed_signers or "")
    try:
        lines = read_companion(signers).splitlines()
    except OSError as error:
        raise ConfigError(f"{SIGNERS_KEY}: {signers}: cannot be read: {error.strerror}") from error
    if not [line for line in lines if line.strip() and not line.strip().startswith(b"#")]:
        raise ConfigError(f"{SIGNERS_KEY}: {signers}: names no signer")
    if config.release.revoked_keys is None:
        return str(signers), None
    revoked = config.resolve(config.release.revoked_keys)
    done = _run("-Q", "-l", "-f", str(revoked))
    if done.returncode:
        made = "expected what `ssh-keygen -k` makes"
        raise ConfigError(f"{REVOKED_KEY}: {revoked}: {_reason(done)}; {made}")
    return str(signers), str(revoked)


@contextmanager
def _as_file(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield a path by which a child that inherits the number can read bytes: what was read once is
    what is judged, and nothing is left behind."""
    number = os.memfd_create("signature")
    try:
        with os.fdopen(number, "wb", closefd=False) as file:
            file.write(data)
        yield f"/dev/fd/{number}", number
    finally:
        os.close(number)


def _run(
    *arguments: str, given: bytes = b"", limit_s: float = _JUDGE_S, files: tuple[int, ...] = ()
) -> _Done:
    program = shutil.which(PROGRAM)
    if program is None:
        missing = f"{PROGRAM} is not installed"
        raise ConfigError(f"{missing}; releases are signed and judged by it: install OpenSSH")
    try:
        return subprocess.run(
            [program, *arguments],
            input=given,
            capture_output=True,
            timeout=limit_s,
            pass_fds=files,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{PROGRAM} gave no answer within {limit_s:g} s") from error
    except OSError as error:
        raise ConfigError(f"{program}: cannot be started: {error.strerror}") from error


def _key_of(done: _Done) -> str:
    found = _KEY.search(_text(done.stdout))
    return found[1] if found else "a key without a fingerprint"


def _reason(done: _Done) -> str:
    """What ssh-keygen said, on one line."""
    lines = [line.strip().removeprefix(_ASKED) for line in _text(done.stderr).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NO_REASON)]
    return "; ".join(told) or f"{PROGRAM} ended with {done.returncode}"


def _text(said: bytes) -> str:
    text = said.decode("utf-8", "replace")
    return "".join(sign for sign in text if sign.isprintable() or sign == "\n")
