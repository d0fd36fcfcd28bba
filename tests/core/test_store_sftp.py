"""A store over real SFTP: whom it trusts, what it says, and what a cut connection leaves."""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from opslib.core.errors import ExitCode, StorageError, UnavailableError
from opslib.core.files import hide_name
from opslib.core.store import Store, open_store
from tests.cutting import cutting
from tests.fleet.sshd import IS_ROOT, free_port
from tests.sftp import Sftp
from tests.turns import looped, turns
from tests.waiting import await_that

LARGE = os.urandom(5_000_000)  # more than what is under way at a time


@pytest.fixture
def store(sftp: Sftp) -> Store:
    return open_store(sftp.make_store())


def refusal(action: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(StorageError) as caught:
        action(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    assert caught.value.exit_code == ExitCode.USAGE
    return text


@contextmanager
def stopped(sftp: Sftp, part: str) -> Iterator[None]:
    """Stop the processes of the host that serve our connection, or those that serve its files."""
    name = "@notty" if part == "the host" else "@internal-sftp"
    assert sftp.host.process is not None
    below = psutil.Process(sftp.host.process.pid).children(recursive=True)
    found = [one for one in below if name in " ".join(one.cmdline())]
    assert found
    for one in found:
        one.suspend()
    try:
        yield
    finally:
        for one in found:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def test_an_unknown_host_key_is_refused_whatever_the_configuration_says(sftp: Sftp) -> None:
    known = sftp.known_hosts.read_bytes()
    store = open_store(sftp.make_store().replace("127.0.0.1", "localhost"))
    for text in (refusal(store.write, "name", b""), refusal(store.list)):
        assert "its host key is not known here; log in once with ssh" in text
    assert sftp.known_hosts.read_bytes() == known
    assert not sftp.folder(store.url).exists()


def test_to_know_nobody_is_not_to_trust_everybody(sftp: Sftp) -> None:
    usual = shutil.copy(sftp.known_hosts, sftp.account / ".ssh")
    try:
        with sftp.told("UserKnownHostsFile none\n"):
            assert "its host key is not known here" in refusal(open_store(sftp.make_store()).list)
    finally:
        Path(usual).unlink()


def test_the_key_of_a_neighbour_is_another_key(sftp: Sftp) -> None:
    """What answers in the place of a known host has a key that is known, of another host."""
    known = sftp.known_hosts.read_text()
    other = (sftp.host.folder.parent / "other_id.pub").read_text()
    sftp.known_hosts.write_text(f"{known}[localhost]:{sftp.host.port} {other}")
    try:
        store = open_store(sftp.make_store().replace("127.0.0.1", "localhost"))
        assert "its host key is not the one that is known here" in refusal(store.list)
    finally:
        sftp.known_hosts.write_text(known)


def test_another_host_key_than_the_known_one_is_refused(sftp: Sftp) -> None:
    known = sftp.known_hosts.read_text()
    other = (sftp.host.folder.parent / "other_id.pub").read_text()
    sftp.known_hosts.write_text(f"[127.0.0.1]:{sftp.host.port} {other}")
    try:
        text = refusal(open_store(sftp.make_store()).write, "name", b"")
    finally:
        sftp.known_hosts.write_text(known)
    assert "its host key is not the one that is known here" in text


def test_a_key_that_the_host_does_not_take_is_one_line(sftp: Sftp) -> None:
    with sftp.with_key("other_id"):
        text = refusal(open_store(sftp.make_store()).list)
    assert text.endswith("it takes no key of this account, of ~/.ssh or an ssh agent")


def test_a_key_file_that_is_missing_is_named(sftp: Sftp) -> None:
    with sftp.told("IdentityFile /no/such/key\n"):
        text = refusal(open_store(sftp.make_store()).list)
    assert text.endswith("/no/such/key: No such file or directory")


@pytest.mark.parametrize("where", ["~/.ssh", "an agent", "behind a jump host"])
def test_a_host_is_reached_as_by_ssh(
    sftp: Sftp, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, folder = sftp.host.folder.parent / "id", sftp.account / ".ssh"
    told = f"UserKnownHostsFile {sftp.known_hosts}\nGlobalKnownHostsFile none\n"
    with ExitStack() as stack:
        if where == "~/.ssh":
            shutil.copy(key, folder / "id_ed25519")
            stack.callback((folder / "id_ed25519").unlink)
        elif where == "an agent":
            socket = tmp_path / "agent"
            command = ["ssh-agent", "-D", "-a", str(socket)]
            agent = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(agent.terminate)
            await_that(socket.exists, "the agent")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            subprocess.run(["ssh-add", "-q", key], check=True)
        else:
            jump = f"{sftp.host.user}@127.0.0.1:{sftp.host.port}"
            told += f"IdentityFile {key}\nHost store.test\nProxyJump {jump}\n"
            told += f"HostName 127.0.0.1\nPort {sftp.host.port}\n"
        stack.callback(sftp.configure)
        (folder / "config").write_text(told)
        store = sftp.make_store()
        if where == "behind a jump host":
            store = store.replace(sftp.place, f"sftp://{sftp.host.user}@store.test")
        open_store(store).write("name", b"data")
        assert open_store(store).read("name") == b"data"


def test_a_host_that_cannot_be_reached_is_one_line(sftp: Sftp) -> None:
    url = f"sftp://127.0.0.1:{free_port()}/folder"
    assert refusal(open_store(url).list).startswith(f"cannot list {url}: ")
    assert refusal(open_store(url).write, "name", b"").endswith("Connection refused")


def test_a_folder_of_others_is_one_line(sftp: Sftp) -> None:
    store = open_store(f"{sftp.place}/root/store")
    assert refusal(store.write, "name", b"").endswith(": Permission denied")


@pytest.mark.skipif(not IS_ROOT, reason="needs root, for a disk that is full")
def test_a_full_disk_is_named_and_nothing_is_left_on_it(sftp: Sftp, tmp_path: Path) -> None:
    store = open_store(f"{sftp.place}{sftp.host.full}/store")
    (tmp_path / "large").write_bytes(LARGE)
    for action in (store.upload, lambda path, name: store.write(name, path.read_bytes())):
        assert "No space left on device" in refusal(action, tmp_path / "large", "name")
        assert store._files.ls(f"{sftp.host.full}/store", detail=False) == []


def test_a_file_in_the_way_is_named(store: Store) -> None:
    store.write("file", b"")
    assert refusal(store.write, "file/name", b"data").endswith("File exists")
    store.write("folder/name", b"")
    assert refusal(store.write, "folder", b"data").endswith("Is a directory")
    assert list(store.list()) == ["file", "folder/name"]


def test_each_version_of_an_object_is_told_from_those_before(store: Store) -> None:
    """SFTP dates in whole seconds, in which a host can write many."""
    versions = []
    for number in range(5):
        store.write("name", b"%d" % number)
        versions.append(store.list()["name"].version)
    assert len(set(versions)) == 5


def test_what_was_never_finished_is_neither_listed_nor_kept(store: Store, sftp: Sftp) -> None:
    store.write("folder/name", b"whole")
    left = hide_name(sftp.folder(store.url) / "folder/name")
    left.write_bytes(b"hal")
    assert list(store.list()) == ["folder/name"]
    store.drop_unfinished("folder/name")
    assert not left.exists()
    assert store.read("folder/name") == b"whole"


def test_a_link_to_a_file_is_listed_and_one_to_a_folder_not_followed(
    store: Store, sftp: Sftp
) -> None:
    store.write("folder/name", b"data")
    folder = sftp.folder(store.url)
    (folder / "file").symlink_to("folder/name")
    (folder / "circle").symlink_to(".")
    (folder / "nowhere").symlink_to("gone")
    assert {name: entry.bytes for name, entry in store.list().items()} == {
        "file": 4,
        "folder/name": 4,
    }


def test_threads_share_one_connection(store: Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    with ThreadPoolExecutor(8) as pool:
        large = pool.submit(store.upload, tmp_path / "large", "large")
        list(pool.map(lambda number: store.write(f"{number}/x", b"%d" % number), range(40)))
        large.result()
    names = [f"{number}/x" for number in range(40)]
    with store.open("large") as file:
        assert store.read_many(names) == {f"{n}/x": b"%d" % n for n in range(40)}
        assert file.read() == LARGE
        assert file.seek(4_999_000) == 4_999_000
        assert file.read() == LARGE[4_999_000:]
    assert len(store.list()) == 41


@looped
def test_an_upload_that_is_cut_at_any_moment_leaves_what_was_there(
    sftp: Sftp, tmp_path: Path
) -> None:
    moments = random.Random(5)
    (tmp_path / "large").write_bytes(LARGE)
    with cutting(sftp.host.port) as proxy:
        port = int(proxy.address.rpartition(":")[2])
        with sftp.behind(port) as url:
            store = open_store(url)
            store.write("name", b"before")
            for _ in range(turns(3, 30)):
                proxy.limit(moments.randrange(len(LARGE)))
                text = refusal(store.upload, tmp_path / "large", "name")
                assert f"to {url}/name: " in text
                proxy.limit(None)
                assert {k: v.bytes for k, v in store.list().items()} == {"name": 6}
                assert store.read("name") == b"before"
            store.drop_unfinished("name")
            store.upload(tmp_path / "large", "name")
            assert store.read("name") == LARGE
    assert [path.name for path in sftp.folder(url).iterdir()] == ["name"]


def test_a_read_that_is_cut_is_one_line(sftp: Sftp) -> None:
    with cutting(sftp.host.port) as proxy:
        port = int(proxy.address.rpartition(":")[2])
        with sftp.behind(port) as url:
            store = open_store(url)
            store.write("name", LARGE * 2)  # more than what is read ahead
            with store.open("name") as file:
                file.read(1)
                proxy.limit(0)
                proxy.cut()
                assert f"cannot read {url}/name: " in refusal(file.read)


def test_a_host_whose_shell_greets_a_program_is_one_line(sftp: Sftp) -> None:
    with sftp.answering("echo Welcome to this host.; exec cat"):
        text = refusal(open_store(sftp.make_store()).list)
    assert "what it sends is no SFTP; expected no text when a program logs in" in text


@pytest.mark.parametrize("command", ["exec sleep 60", "exit 0"])
def test_a_host_that_lets_in_and_says_nothing_is_one_line(
    sftp: Sftp, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opslib.core.ssh.CONNECT_TIMEOUT_S", 1)
    monkeypatch.setattr("opslib.core.ssh.READ_TIMEOUT_S", 2)
    with sftp.answering(command):
        text = refusal(open_store(sftp.make_store()).list)
    assert text.endswith(("cannot be reached within 2 s", "the connection was cut"))


@pytest.mark.parametrize("silent", ["the host", "its SFTP"])
def test_a_host_that_falls_silent_is_one_line_and_asked_anew(
    sftp: Sftp, silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = sftp.make_store()
    open_store(url).write("name", LARGE * 3)  # more than what is read ahead
    limits = {"CONNECT_TIMEOUT_S": 0.5, "READ_TIMEOUT_S": 2} if silent == "the host" else {}
    for name, value in limits.items():
        monkeypatch.setattr(f"opslib.core.ssh.{name}", value)
    if silent == "its SFTP":
        monkeypatch.setattr("opslib.core.store_sftp.ANSWER_S", 2)
    store = open_store(url)
    with store.open("name") as file:
        file.read(1)
        with stopped(sftp, silent):
            text = refusal(file.read)
    assert text.endswith("the connection was cut" if silent == "the host" else "within 2 s")
    assert list(store.list()) == ["name"]
    del file, store
    gc.collect()
    assert not caplog.records


def test_a_process_ends_with_a_file_left_open(sftp: Sftp) -> None:
    url = sftp.make_store()
    open_store(url).write("name", LARGE * 3)
    code = (
        "import sys; from opslib.core.store import open_store\n"
        "file = open_store(sys.argv[1]).open('name'); file.read(1)"
    )
    command = [sys.executable, "-c", code, url]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_without_its_package_a_store_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sshfs", None)
    monkeypatch.delitem(sys.modules, "opslib.core.store_sftp", raising=False)
    with pytest.raises(UnavailableError, match=r"needs sshfs: pip install 'pillops\[sftp\]'"):
        open_store("sftp://host/folder")
