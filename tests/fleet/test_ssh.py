"""H-7: a roll over real SSH, and what goes wrong there is named for each host."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.playing import NAMES, Fleet, environment, open_fleet
from tests.fleet.sshd import IS_ROOT, PYTHON, SSHD, SshHost, can_split, open_hosts
from tests.waiting import await_that

pytestmark = pytest.mark.skipif(
    not (SSHD and PYTHON and shutil.which("ssh")) or (IS_ROOT and not can_split()),
    reason="needs sshd, ssh and the system's python3; as root namespaces too",
)
ANEW = {"ANSIBLE_SSH_ARGS": "-C"}  # by no connection that an earlier roll left open
# A Python that is none, in place of one that is too old to run Ansible's modules.
OTHER_PYTHON = "#!/bin/sh\necho 'SyntaxError: invalid syntax (Python 2.4)' >&2\nexit 1\n"


@pytest.fixture(scope="module")
def over_ssh() -> Iterator[tuple[Fleet, dict[str, SshHost]]]:
    folder = Path(tempfile.mkdtemp(prefix="pillops-fleet-", dir="/tmp"))  # users must get there
    folder.chmod(0o755)
    (folder / "hosts").mkdir()
    try:
        with open_fleet(folder) as fleet, open_hosts(folder / "hosts", *NAMES) as hosts:
            yield fleet, hosts
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def fleet(over_ssh: tuple[Fleet, dict[str, SshHost]]) -> Fleet:
    """Every host with the older model, each file of a host its user's."""
    fleet, hosts = over_ssh
    fleet.put_back()
    for name, host in hosts.items():
        if IS_ROOT:
            for path in (fleet.folder / name, *(fleet.folder / name).rglob("*")):
                os.chown(path, host.uid, host.uid, follow_symlinks=False)
    fleet.write_inventory(**{name: host.variables() for name, host in hosts.items()})
    return fleet


@pytest.fixture
def hosts(over_ssh: tuple[Fleet, dict[str, SshHost]]) -> dict[str, SshHost]:
    return over_ssh[1]


def test_every_host_is_switched_over_ssh_by_its_own_user(
    fleet: Fleet, hosts: dict[str, SshHost]
) -> None:
    rolled = fleet.roll()
    assert rolled.returncode == 0, rolled.stdout
    assert set(fleet.served.values()) == {fleet.wanted}
    owners = [(live.place.export / "model-b.onnx").stat().st_uid for live in fleet.hosts.values()]
    assert owners == [host.uid for host in hosts.values()]
    assert fleet.notes == []


def test_each_host_that_cannot_be_prepared_is_named_and_none_is_switched(
    fleet: Fleet, hosts: dict[str, SshHost]
) -> None:
    """A wrong key, a full disk and another Python, at once."""
    generations = fleet.generations
    python = fleet.folder / "python2.4"
    python.write_text(OTHER_PYTHON)
    python.chmod(0o755)
    wrong = str(hosts["one"].folder.parent / "other_id")
    full = {"model_dir": str(hosts["two"].full)} if IS_ROOT else {"model_dir": "/proc/full"}
    other = {"ansible_python_interpreter": str(python)}
    changes = {"one": {"ansible_ssh_private_key_file": wrong}, "two": full, "three": other}
    fleet.write_inventory(**{name: hosts[name].variables(**changes[name]) for name in NAMES})
    rolled = fleet.roll(**ANEW)
    said = " ".join(rolled.stdout.split())
    assert rolled.returncode == 2
    assert "one: cannot be reached: " in said
    assert "Permission denied (publickey)" in said
    if IS_ROOT:
        assert "No space left on device" in said.partition('msg": "two: ')[2][:600]
    assert "Python 2.4" in said.partition("three: ")[2]
    assert said.count("no host was changed") >= len(NAMES)
    assert fleet.generations == generations
    assert fleet.notes == []


def test_a_host_whose_key_is_unknown_is_left_out_where_one_may_fail(
    fleet: Fleet, hosts: dict[str, SshHost]
) -> None:
    before = fleet.served
    known = fleet.folder / "known_without_three"
    lines = (hosts["three"].folder.parent / "known_hosts").read_text().splitlines(keepends=True)
    known.write_text("".join(line for line in lines if f":{hosts['three'].port} " not in line))
    strict = hosts["three"].variables()["ansible_ssh_common_args"]
    unknown = str(strict).replace(str(hosts["three"].folder.parent / "known_hosts"), str(known))
    changed = {"three": hosts["three"].variables(ansible_ssh_common_args=unknown)}
    rest = {name: hosts[name].variables() for name in ("one", "two")}
    fleet.write_inventory(**rest, **changed)
    rolled = fleet.roll("-e", "max_failed=1", **ANEW)
    said = " ".join(rolled.stdout.split())
    assert rolled.returncode == 2
    assert "three was not switched: cannot be reached: " in said
    assert "Host key verification failed" in said
    assert fleet.served == {"one": fleet.wanted, "two": fleet.wanted, "three": before["three"]}
    assert fleet.notes == []


def test_a_host_that_goes_away_is_named_and_those_before_it_are_taken_back(
    fleet: Fleet, hosts: dict[str, SshHost]
) -> None:
    before = fleet.served
    roll = subprocess.Popen(
        fleet.command(),
        env=environment(fleet.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    live = fleet.hosts["one"]
    await_that(lambda: live.version["model_sha256"] == fleet.wanted, "the first switch", 120)
    hosts["two"].kill()
    said = " ".join(roll.communicate(timeout=120)[0].split())
    assert roll.returncode == 2
    assert "two was not switched: cannot be reached: " in said
    assert "NOT taken back, look at: two" in said
    assert fleet.served == before
    hosts["two"].start()
    again = fleet.roll()
    assert again.returncode == 0, again.stdout
    assert set(fleet.served.values()) == {fleet.wanted}
    assert fleet.notes == []
