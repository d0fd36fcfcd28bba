"""Locks, plans, secrets, records, host and formatting."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import BusyError, InputError, ParameterError
from opslib.core.formatting import format_bytes, format_duration, format_ms, plural
from opslib.core.host import (
    cgroup_quota_cores,
    host_facts,
    parse_gpus,
    read_host_name,
    usable_cpus,
)
from opslib.core.lineage import git_sha, record_lineage
from opslib.core.locks import hold_lock
from opslib.core.plans import Action, Plan, carry_out
from opslib.core.records import Record
from opslib.core.secrets import live_secrets, mask, resolve_reference

ROOT = Path(__file__).resolve().parents[2]


class Sample(Record):
    schema_name = "sample"
    schema_version = 2
    p50_ms: float | None


def test_a_record_survives_the_round_trip_and_says_its_schema(tmp_path: Path) -> None:
    path = Sample(p50_ms=1.25).write(tmp_path / "r.json")
    assert '"schema": "sample/2"' in path.read_text()
    assert Sample.read(path) == Sample(p50_ms=1.25)


def test_a_value_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    path = Sample(p50_ms=float("nan")).write(tmp_path / "r.json")
    assert Sample.read(path).p50_ms is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a sample/2 record"),
        ('{"schema": "sample/1", "p50_ms": 1}', "schema is 'sample/1', expected 'sample/2'"),
        ('{"schema": "sample/2", "p50_ms": 1, "p99_ms": 2}', "p99_ms"),
    ],
)
def test_a_record_of_another_shape_is_refused_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Sample.read(path)


def test_the_second_holder_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from opslib.core.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), 'monthly benchmark'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    path = tmp_path / "timing.lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match=rf"monthly benchmark \(pid {holder.pid}"),
            hold_lock(path, "second run"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with hold_lock(path, "after a kill"):
        pass


def test_a_dry_run_shows_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "old.log"
    victim.write_text("x" * 2048)
    plan = Plan(
        "maintenance",
        (Action("delete", "old.log", "older than 7 days", victim.unlink, frees_bytes=2048),),
    )
    shown: list[str] = []
    carry_out(plan, dry_run=True, show=shown.append)
    assert victim.exists()
    assert shown == [
        "maintenance: 1 step",
        "  delete old.log (2 KiB): older than 7 days",
        "dry run: nothing was changed",
    ]
    outcome = carry_out(plan, dry_run=False, show=shown.append)
    assert not victim.exists()
    assert outcome.freed_bytes == 2048


def test_a_step_that_fails_is_skipped_with_its_reason_and_the_rest_is_done(tmp_path: Path) -> None:
    there = tmp_path / "b"
    there.touch()
    plan = Plan(
        "clean",
        (
            Action("delete", "a", "gone", (tmp_path / "a").unlink),
            Action("delete", "b", "old", there.unlink),
        ),
    )
    outcome = plan.execute()
    assert [skipped.reason for skipped in outcome.skipped] == ["No such file or directory"]
    assert [action.target for action in outcome.done] == ["b"]


def test_secrets_are_masked_longest_first() -> None:
    assert mask("key=abcdefgh1234 or abcdefgh", ["abcdefgh", "abcdefgh1234"]) == (
        "key=******** or ********"
    )


def test_secret_values_are_found_by_the_names_of_their_variables(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_KEY=0123456789abcdef\nLOG_LEVEL=WARNINGS\n")
    found = live_secrets(tmp_path, {"HF_TOKEN": "tokentoken", "PATH": "/usr/bin:/bin"})
    assert found == {"0123456789abcdef", "tokentoken"}


def test_a_secret_is_given_by_reference_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "value-of-it")
    assert resolve_reference("env:MY_KEY") == "value-of-it"
    with pytest.raises(ParameterError) as caught:
        resolve_reference("value-of-it")
    assert "value-of-it" not in str(caught.value)
    with pytest.raises(ParameterError, match="NOT_SET is set neither"):
        resolve_reference("env:NOT_SET")


def test_the_host_is_described_and_its_fingerprint_is_stable() -> None:
    facts = host_facts()
    assert facts.cpus_usable == usable_cpus() <= facts.cpus_total
    assert len(facts.fingerprint) == 12
    other = facts.model_copy(update={"cpu": "another"})
    assert other.fingerprint != facts.fingerprint


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("gpu-1.example.org", "gpu-1.example.org"),
        ("", None),
        ("localhost", None),
        ("localhost.localdomain", None),
        ("3f2a9c01b7de", None),
    ],
)
def test_a_host_has_the_name_that_the_system_gives_it_unless_that_is_none_that_stays(
    monkeypatch: pytest.MonkeyPatch, given: str, name: str | None
) -> None:
    monkeypatch.setattr("platform.node", lambda: given)
    assert read_host_name() == name


def test_hosts_of_equal_hardware_are_told_apart_by_their_names_alone() -> None:
    plain = host_facts().model_copy(update={"name": None})
    one, other = (plain.model_copy(update={"name": name}) for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint
    assert not one.is_same(other)
    assert one.is_same(plain)
    assert not one.is_same(one.model_copy(update={"cpu": "another"}))


def test_cards_are_read_from_the_drivers_table() -> None:
    cards = parse_gpus("NVIDIA GeForce RTX 5080, 580.65.06, 16303\nbroken line\n")
    assert [(card.name, card.memory_bytes) for card in cards] == [
        ("NVIDIA GeForce RTX 5080", 16303 * 2**20)
    ]


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("broken", None)]
)
def test_the_cgroup_quota_is_read_in_cores(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota_cores(tmp_path) == cores


def test_lineage_names_the_commit_or_says_that_there_is_none(tmp_path: Path) -> None:
    assert git_sha(tmp_path) == "nogit"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True, env=env)
    lineage = record_lineage(tmp_path)
    assert len(lineage.git_sha) == 7
    assert not lineage.git_dirty
    assert "numpy" in lineage.versions


def test_quantities_read_as_people_write_them() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5 GiB",
    ]
    assert [format_ms(v) for v in (None, 0.1234, 12.34, 456.7)] == ["–", "0.12", "12.3", "457"]
    assert [format_duration(s) for s in (42, 185, 7800)] == ["42 s", "3 min 05 s", "2 h 10 min"]
    assert [plural(n, "image") for n in (1, 2000)] == ["1 image", "2,000 images"]


class Timings(Record):
    schema_name = "timings"
    raw_ms: tuple[tuple[float | None, ...], ...]
    names: tuple[str, ...]


def test_a_list_of_numbers_stands_on_one_line(tmp_path: Path) -> None:
    record = Timings(raw_ms=((1.5, -2e-07, 3.0), (), (None, 4.0)), names=("a", "[ 1, 2 ]"))
    text = record.to_json()
    assert "[1.5, -2e-7, 3.0]" in text
    assert "[null, 4.0]" in text
    assert Timings.read(record.write(tmp_path / "r.json")) == record
