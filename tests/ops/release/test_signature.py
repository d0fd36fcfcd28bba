"""A release says who made it: whatever is changed, swapped, replayed or signed by another is
refused, each in words of its own."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ConfigError, InputError, OpsError, ParameterError
from opslib.core.store import open_store
from opslib.ops.release import signature
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path, signature_path
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.prune import plan_prune
from opslib.ops.release.push import push_release
from opslib.ops.release.remote import look_into
from opslib.ops.release.report import make_or_find
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.restore import copy_release, restore_release
from opslib.ops.release.rollback import find_stable, plan_rollback
from opslib.ops.release.rota import prove_release
from opslib.ops.release.signature import UnsignedRecord
from opslib.ops.release.store import find_release, list_releases
from opslib.ops.release.verify import verify_release
from tests.ops.release.conftest import (
    QUICK,
    hidden_files,
    make_experiment,
    members_of,
    visible,
    write_archive,
)
from tests.ops.release.restoring import make_releasable
from tests.ops.release.signing import (
    PARTS,
    WHO,
    Files,
    allow,
    make_key,
    public,
    release_signed,
    revoke,
    with_lists,
)
from tests.ops.release.test_command import call
from tests.ops.release.test_rollback_store import remove, version_of
from tests.serving.conftest import Place
from tests.waiting import await_that


@dataclass(frozen=True)
class World:
    """Two releases of one experiment signed by one key, and one that somebody else made of other
    models under the name of the first, signed with a key of theirs."""

    place: Place
    key: Path
    first: Files
    second: Files
    forged: Files
    config: Config

    @property
    def folder(self) -> Path:
        """Where its keys lie."""
        return self.key.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once: tests change copies."""
    folder = tmp_path_factory.mktemp("signed")
    key, theirs = make_key(folder / "ours"), make_key(folder / "theirs")
    place = make_experiment(folder / "place")
    other = make_experiment(folder / "other")
    with other.second.with_name("model-b.onnx.data").open("ab") as file:
        file.write(b"more")
    for name in ("model-b.json", "export_report.json"):
        (other.export / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        first = Files(release_signed(place, patch, key).path)
        second = Files(release_signed(place, patch, key, 1).path)
        forged = Files(release_signed(other, patch, theirs).path)
    assert forged.archive.name == first.archive.name
    config = with_lists(place, allow(folder / "allowed", key))
    yield World(place, key, first, second, forged, config)


def refusal(found: Files, config: Config, kind: type[OpsError] = ReleaseError) -> str:
    """What a release is refused with, which is one line."""
    with pytest.raises(kind) as caught:
        verify_release(found.archive, config=config, load_models=False)
    assert str(caught.value).isprintable()
    return str(caught.value)


SETS = [one for size in (1, 2, 3, 4) for one in itertools.combinations(PARTS, size)]


def test_a_signed_release_says_who_signed_it(world: World, tmp_path: Path) -> None:
    record = verify_release(world.first.archive, config=world.config)
    assert record.signature is not None
    assert record.signature.principal == WHO
    assert re.fullmatch(r"ED25519 key SHA256:\S{43}", record.signature.key or "")
    restored = restore_release(world.first.archive, tmp_path / "out", config=world.config)
    assert restored.signature == record.signature


def test_what_any_host_has_judges_it_too(world: World) -> None:
    command = ["ssh-keygen", "-Y", "verify", "-f", world.folder / "allowed", "-I", WHO]
    command += ["-n", "pillops-release", "-s", world.first.part("signature")]
    with world.first.part("manifest").open("rb") as manifest:
        done = subprocess.run(command, stdin=manifest, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f'Good "pillops-release" signature for {WHO} ')


@pytest.mark.parametrize("parts", SETS, ids="+".join)
def test_what_somebody_forges_is_refused_whatever_they_replace(
    parts: tuple[str, ...], world: World, tmp_path: Path
) -> None:
    found = world.first.copy_to(tmp_path)
    for name in parts:
        found.take(name, world.forged)
    said = refusal(found, world.config)
    if parts == PARTS:
        assert "which release.allowed_signers does not name" in said
    elif set(parts) == {"archive", "checksum", "manifest"} or parts == ("signature",):
        assert "does not fit the MANIFEST.json" in said


@pytest.mark.parametrize("parts", SETS, ids="+".join)
def test_what_is_swapped_between_releases_is_refused_whatever_is(
    parts: tuple[str, ...], world: World, tmp_path: Path
) -> None:
    """All four together are an older release under a newer name."""
    found = world.second.copy_to(tmp_path)
    for name in parts:
        found.take(name, world.first)
    said = refusal(found, world.config)
    if parts == PARTS:
        older = world.first.archive.name.removesuffix(".tar.gz")
        assert f"what was signed is {older}: another release under this name" in said


@pytest.mark.parametrize("part", PARTS)
def test_a_byte_that_is_changed_in_any_part_is_refused(
    part: str, world: World, tmp_path: Path
) -> None:
    found = world.first.copy_to(tmp_path)
    data = bytearray(found.part(part).read_bytes())
    for at in range(len(data) // 7, len(data), len(data) // 7):
        changed = bytearray(data)
        changed[at] ^= 1
        found.part(part).write_bytes(changed)
        refusal(found, world.config)


def test_packing_it_otherwise_keeps_the_signature(world: World, tmp_path: Path) -> None:
    found = world.first.copy_to(tmp_path)
    members = list(members_of(found.archive).items())
    before = found.archive.read_bytes()
    write_archive(found.archive, [*members])
    assert found.archive.read_bytes() != before
    seen = verify_release(found.archive, config=world.config, load_models=False).signature
    assert seen is not None
    assert seen.principal == WHO


def test_a_key_counts_when_it_was_valid_at_the_time_that_was_signed(
    world: World, tmp_path: Path
) -> None:
    """The releases are of 21 and 28 September 2026."""
    rotated = 'valid-after="20260901",valid-before="20260925"'
    config = with_lists(world.place, allow(tmp_path / "allowed", world.key, rotated))
    assert verify_release(world.first.archive, config=config, load_models=False).signature
    said = refusal(world.second, config)
    assert re.search(r"signed by ED25519 key \S+ outside its validity: key has expired", said)
    assert str(tmp_path) not in said


NOT_ACCEPTED = {
    "expired": "outside its validity: key has expired: verify time .* > valid-before",
    "not yet valid": "outside its validity: key is not yet valid",
    "revoked": r"which is revoked \(release.revoked_keys\)",
    "revoked, valid then": r"which is revoked \(release.revoked_keys\)",
    "unknown": r"signed by ED25519 key SHA256:\S+, which release.allowed_signers does not name",
    "other purposes": "which may not: key is not permitted for use in signature namespace",
    "unsigned": r"unsigned: no \S+\.manifest\.json\.sig that can be read",
    "empty signature": r"unsigned: no \S+\.manifest\.json\.sig that can be read",
    "garbage": r"\.sig: no signature: Couldn't parse signature",
    "huge": r"unsigned: no \S+ that can be read",
    "for git": r"\.sig: was made for another purpose than pillops-release",
}
NOT_JUDGED = {
    "no signers": "release.allowed_signers: .*: names no signer",
    "comments": "release.allowed_signers: .*: names no signer",
    "malformed": r"release.allowed_signers: .*allowed:1: missing key",
    "malformed key": r"release.allowed_signers: .*allowed:1: invalid key",
    "malformed option": r"release.allowed_signers: .*allowed:1: bad options: unknown key option",
    "missing": "release.allowed_signers: .*: cannot be read: No such file or directory",
    "a pipe": "release.allowed_signers: .*: cannot be read: no regular file",
    "revoked: malformed": "release.revoked_keys: .*: Invalid KRL file .*; expected what `ssh-keyg",
    "revoked: empty": "release.revoked_keys: .*: Invalid KRL file",
    "revoked: missing": "release.revoked_keys: .*No such file",
    "no ssh-keygen": "ssh-keygen is not installed; .* install OpenSSH",
    "ssh-keygen hangs": "ssh-keygen gave no answer within 0.2 s",
}


def spoil(why: str, world: World, found: Files, folder: Path, patch: pytest.MonkeyPatch) -> Config:
    """Change a release, or the lists that it is judged by, as `why` says."""
    signers, revoked, theirs = folder / "allowed", None, world.folder / "theirs"
    allow(signers, theirs if why == "unknown" else world.key, OPTIONS.get(why, ""))
    if why.startswith("revoked"):
        revoked = revoke(folder / "revoked", world.key)
    sig = found.part("signature")
    if why == "unsigned":
        sig.unlink()
    elif why in SIGNATURES:
        sig.write_bytes(SIGNATURES[why])
    elif why == "for git":
        sig.unlink()
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", world.key]
        subprocess.run([*command, found.part("manifest")], check=True, capture_output=True)
        assert sig.exists()
    elif why in LISTS:
        signers.write_text(LISTS[why])
    elif why in ("missing", "a pipe"):
        signers.unlink()
        if why == "a pipe":
            os.mkfifo(signers)
    elif why == "revoked: missing" and revoked:
        revoked.unlink()
    elif why.startswith("revoked: ") and revoked:
        revoked.write_text(public(world.key) if why.endswith("malformed") else "")
    elif why == "no ssh-keygen":
        patch.setenv("PATH", str(folder))
    elif why == "ssh-keygen hangs":
        program = folder / "ssh-keygen"
        program.write_text("#!/bin/sh\nexec sleep 60\n")
        program.chmod(0o755)
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        patch.setattr(signature, "_JUDGE_S", 0.2)
        patch.setattr(signature._run, "__kwdefaults__", {"given": b"", "limit_s": 0.2, "files": ()})
    return with_lists(world.place, signers, revoked)


OPTIONS = {
    "expired": 'valid-before="20260901"',
    "not yet valid": 'valid-after="20270101"',
    "revoked, valid then": 'valid-after="20260901",valid-before="20261101"',
    "other purposes": 'namespaces="git,file"',
    "malformed option": 'whatever="yes"',
}
SIGNATURES = {"empty signature": b"", "garbage": b"garbage\n", "huge": bytes(64 << 20)}
LISTS = {
    "no signers": "",
    "comments": "# nobody\n\n",
    "malformed": "alice\n",
    "malformed key": "alice ssh-ed25519 AAAAgarbage\n",
}


@pytest.mark.parametrize("why", NOT_ACCEPTED)
def test_a_release_that_is_not_signed_as_it_must_be_is_refused_in_words_of_its_own(
    why: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.first.copy_to(tmp_path / "found")
    config = spoil(why, world, found, tmp_path, monkeypatch)
    assert re.search(NOT_ACCEPTED[why], refusal(found, config))


@pytest.mark.parametrize("why", NOT_JUDGED)
def test_what_cannot_be_judged_here_is_refused_as_a_fault_of_this_host(
    why: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.first.copy_to(tmp_path / "found")
    config = spoil(why, world, found, tmp_path, monkeypatch)
    assert re.search(NOT_JUDGED[why], refusal(found, config, ConfigError))


def test_every_door_refuses_and_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.first.copy_to(world.place.config.releases_dir / "apart")
    config = spoil("unknown", world, found, tmp_path, monkeypatch)
    said = refusal(found, config)
    with pytest.raises(ReleaseError, match=re.escape(said)):
        restore_release(found.archive, tmp_path / "out", config=config)
    assert not [one for one in tmp_path.iterdir() if "out" in one.name]
    test = prove_release(config, find_release(config, found.archive))
    assert test.verdict == "fail"
    assert [step.ok for step in test.steps] == [False]
    assert "which release.allowed_signers does not name" in test.finding
    shutil.rmtree(found.archive.parent)


def test_a_restore_test_fails_no_release_for_a_fault_of_this_host(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.first.copy_to(tmp_path / "found")
    config = spoil("no ssh-keygen", world, found, tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="ssh-keygen is not installed"):
        prove_release(config, find_release(config, found.archive))


def test_a_rollback_passes_over_what_nobody_known_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, theirs = make_key(tmp_path / "ours"), make_key(tmp_path / "theirs")
    place = make_releasable(tmp_path / "place")
    release_signed(place, monkeypatch, key, onnx=place.first)
    digest, live = remove(place.first), version_of(place.second)
    refused = with_lists(place, allow(tmp_path / "others", theirs))
    with pytest.raises(OpsError, match=r"which release\.allowed_signers does not name"):
        find_stable(refused, live)
    accepted = with_lists(place, allow(tmp_path / "allowed", key))
    stable = find_stable(accepted, live)
    assert stable.sha256 == digest
    plan_rollback(stable, lambda: None).execute()
    assert stable.path.exists()
    # What lies restored is as good as the signature of its release, no better.
    with pytest.raises(OpsError, match=r"which release\.allowed_signers does not name"):
        find_stable(refused, live)
    again = find_stable(accepted, live)
    assert (again.sha256, again.release) == (digest, None)
    taken = find_stable(refused, live, demand="overridden")
    assert taken.sha256 == digest


def test_unsigned_overrides_once_and_is_recorded(world: World, tmp_path: Path) -> None:
    place = make_experiment(tmp_path / "place")
    with place.config_path.open("a") as file:
        file.write(f"release: {{allowed_signers: {world.folder / 'allowed'}}}\n")
    refused = call(place, "create")
    assert refused.returncode == 2
    assert "name a key with --sign or release.signing_key, or say --unsigned" in refused.stderr
    assert list_releases(place.config) == ()
    made = call(place, "create", "--unsigned")
    assert made.returncode == 0, made.stderr
    (stored,) = list_releases(place.config)
    assert not stored.has_signature
    for words in (("verify",), ("restore",), ("prove", stored.name)):
        answer = call(place, *words, "--no-load") if words[0] != "prove" else call(place, *words)
        assert answer.returncode == 3, answer.stderr
        assert "unsigned: no " in answer.stdout + answer.stderr
    assert not list(place.config.records_dir.glob("unsigned_*"))
    taken = call(place, "restore", "--no-load", "--unsigned")
    assert taken.returncode == 0, taken.stderr
    assert "taken unsigned: " in taken.stdout
    (path,) = place.config.records_dir.glob("unsigned_*.json")
    record = UnsignedRecord.read(path)
    assert record.release == stored.name
    assert "unsigned: no " in record.problem
    assert call(place, "verify", "--no-load").returncode == 3


def test_nobody_asks_where_no_signers_are_listed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # not even for ssh-keygen
    found = world.first.copy_to(tmp_path)
    for data in (b"garbage", None):
        if data is None:
            found.part("signature").unlink()
        else:
            found.part("signature").write_bytes(data)
        seen = verify_release(found.archive, config=world.place.config, load_models=False)
        assert seen.signature is None


def test_revoked_keys_alone_are_refused(world: World) -> None:
    variables = {"PILLSNAP_RELEASE__REVOKED_KEYS": "revoked"}
    with pytest.raises(ConfigError, match="expected allowed_signers beside revoked_keys"):
        load_config(world.place.config_path, variables)


def test_a_key_in_an_agent_signs_by_its_public_half_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, key = make_experiment(tmp_path / "place"), make_key(tmp_path / "key")
    half, socket = tmp_path / "key.pub", tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            await_that(socket.exists, "the agent")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            subprocess.run(["ssh-add", "-q", key], check=True)
            key.unlink()
            record = release_signed(place, monkeypatch, half)
            locked = make_key(tmp_path / "locked", "correct horse")
            subprocess.run(["ssh-add", "-q", unlock(locked, "correct horse")], check=True)
            by_locked = release_signed(place, monkeypatch, locked, 1)
        finally:
            agent.terminate()
    config = with_lists(place, allow(tmp_path / "allowed", key))
    assert verify_release(record.path, config=config, load_models=False).signature
    config = with_lists(place, allow(tmp_path / "allowed", locked))
    assert verify_release(by_locked.path, config=config, load_models=False).signature


def unlock(key: Path, passphrase: str) -> Path:
    """A copy of a key without its passphrase, as an agent holds it."""
    bare = key.with_name(f"{key.name}-bare")
    shutil.copy(key, bare)
    command = ["ssh-keygen", "-q", "-p", "-P", passphrase, "-N", "", "-f", bare]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return bare


COMMAND = (sys.executable, "-m", "opslib.cli", "release")
NO_KEYS = {
    "missing": r"no key to sign with: .*No such file",
    "garbage": r"no key to sign with: .*is not a (public )?key file",
    "public, no agent": r"does not sign: No private key found .*has to be in an agent",
    "open to all": r"does not sign: Permissions 0644 .* are too open.*",
    "locked": r"does not sign: Load key .*: incorrect passphrase supplied.*has to be in an agent",
}


@pytest.mark.parametrize("why", NO_KEYS)
def test_a_key_that_does_not_sign_is_one_line_and_leaves_no_release(
    why: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = make_key(tmp_path / "key", "correct horse" if why == "locked" else "")
    place.config.releases_dir.mkdir(exist_ok=True)
    given = {"missing": tmp_path / "none", "public, no agent": tmp_path / "key.pub"}.get(why, key)
    if why == "garbage":
        key.write_text("garbage\n")
        (tmp_path / "key.pub").unlink()
    elif why == "public, no agent":
        key.unlink()
    elif why == "open to all":
        key.chmod(0o644)
    answer = subprocess.run(  # in a session without a terminal, as cron's are: nobody is asked
        [*COMMAND, "create", "--sign", given, "--config", place.config_path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2, answer.stderr
    assert re.search(rf"error: {given}: {NO_KEYS[why]}", answer.stderr.splitlines()[-1])
    assert visible(place.config.releases_dir) == []
    assert hidden_files(place.config.releases_dir) == []


def test_a_release_is_not_made_with_a_key_that_is_not_accepted(world: World, place: Place) -> None:
    config = with_lists(place, world.folder / "allowed")
    request = ReleaseRequest(sign=world.folder / "theirs", load_models=False)
    with pytest.raises(ReleaseError, match=r"which release\.allowed_signers does not name"):
        build_release(config, request)
    assert visible(config.releases_dir) == []
    assert hidden_files(config.releases_dir) == []


def test_the_report_of_a_release_makes_an_unsigned_one_where_that_is_said(
    world: World, place: Place
) -> None:
    config = with_lists(place, world.folder / "allowed")
    with pytest.raises(ParameterError, match="or say --unsigned"):
        make_or_find(config, allow_missing_metrics=True)
    made = make_or_find(config, only=True, allow_missing_metrics=True, unsigned=True).stored
    assert made is not None
    assert not made.has_signature


def test_the_configured_key_signs_and_nothing_of_it_is_told(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "key")
    seen = tmp_path / "seen"
    program = tmp_path / "bin" / "ssh-keygen"
    program.parent.mkdir()
    real = shutil.which("ssh-keygen")
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {seen}\nexec {real} "$@"\n')
    program.chmod(0o755)
    with place.config_path.open("a") as file:
        file.write(f"release: {{signing_key: {key}, allowed_signers: {tmp_path}/allowed}}\n")
    allow(tmp_path / "allowed", key)
    path = f"{program.parent}:{os.environ['PATH']}"
    made = call(place, "create", PATH=path)
    assert made.returncode == 0, made.stderr
    assert f"signed by {WHO}, ED25519 key SHA256:" in made.stderr
    archive = Path(made.stdout.strip())
    secrets = [line.encode() for line in key.read_text().splitlines()[1:-1]]
    told = made.stderr.encode() + seen.read_bytes()
    told += b"".join(path.read_bytes() for path in Files(archive).archive.parent.iterdir())
    told += b"".join(members_of(archive).values())
    assert not [one for one in secrets if one in told]
    assert "sign" in seen.read_text()
    listed = call(place, "list")
    assert "signature" in listed.stdout
    assert re.search(r"\byes\b", listed.stdout)


@pytest.mark.parametrize("kind", ["s3", "file", "sftp"])
def test_a_signature_goes_into_a_store_and_is_asked_for_there(
    kind: str, world: World, tmp_path: Path, make_store: Callable[[str], str]
) -> None:
    store = open_store(make_store(kind))
    push_release(world.first.archive, store, config=world.place.config)
    (found,) = look_into(store).releases
    assert found.has_signature
    seen = verify_release(found, config=world.config, load_models=False).signature
    assert seen is not None
    assert seen.principal == WHO
    restored = restore_release(found, tmp_path / "out", config=world.config, load_models=False)
    assert restored.signature == seen
    name = signature_path(world.first.archive).name
    store.write(name, world.second.part("signature").read_bytes())
    with pytest.raises(ReleaseError, match=r"does not fit the MANIFEST\.json"):
        verify_release(look_into(store).releases[0], config=world.config, load_models=False)
    store.delete([name])
    with pytest.raises(ReleaseError, match="unsigned: no "):
        verify_release(look_into(store).releases[0], config=world.config, load_models=False)
    push_release(world.first.archive, store, config=world.place.config)  # it is finished
    (found,) = look_into(store).releases
    assert verify_release(found, config=world.config, load_models=False).signature == seen
    found.store.delete(found.objects)
    assert store.list() == {}


def test_a_signature_goes_with_a_copy_and_with_what_is_pruned(
    world: World, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for week in range(3):
        release_signed(place, monkeypatch, world.key, week)
    *_, oldest = list_releases(place.config)
    copy_release(oldest.path, tmp_path / "second", config=world.config)
    copied = tmp_path / "second" / oldest.path.name
    assert verify_release(copied, config=world.config, load_models=False).signature
    signature_path(copied).unlink()
    copy_release(oldest.path, tmp_path / "second", config=world.config)
    assert signature_path(copied).read_bytes() == signature_path(oldest.path).read_bytes()
    plan_prune(place.config, keep=2).execute()
    left = visible(place.config.releases_dir)
    assert len(left) == 8
    assert not [one for one in left if one.startswith(oldest.name)]


def test_an_unsigned_release_is_what_it_was(place: Place) -> None:
    record = build_release(place.config, QUICK)
    assert isinstance(record, ReleaseRecord)
    assert '"signature"' not in record.to_json()
    assert not signature_path(record.path).exists()
    assert checksum_path(record.path).exists()
    with pytest.raises(InputError, match="no key to sign with"):
        build_release(place.config, ReleaseRequest(sign=place.config_path))
