"""On a disk without room the nightly job frees, the watch watches, and nobody is told of a run that
was another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.errors import BusyError, ExitCode
from opslib.core.files import overwrite
from opslib.core.locks import hold_lock
from opslib.serving.leases import LEASE_FOLDER, FoundLease, Lease
from opslib.upkeep.health import health_state_path, watch_health
from opslib.upkeep.health_record import read_memory
from opslib.upkeep.job_status import JobStatus, keep_status, read_status, status_path, track_job
from opslib.upkeep.jobs import Job, run_job
from opslib.upkeep.jobs import Place as Programs
from opslib.upkeep.maintenance import run_maintenance
from opslib.upkeep.maintenance_record import MaintenanceRecord
from opslib.upkeep.rotate import run_rotation
from tests.upkeep.full_disk import fill_disk, is_full, small_disk
from tests.upkeep.places import NOW, Place, make_place

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "maintenance.sh"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Place]:
    """An experiment that lies on a small disk of its own."""
    with small_disk(tmp_path / "disk") as disk:
        yield make_place(disk / "home")


def call(place: Place, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The script as cron calls it, its output appended to `log`."""
    environment = {**os.environ, "PILLSNAP_PYTHON": sys.executable}
    command = f"{SCRIPT} --config {place.config_path}" + (f" >> {log} 2>&1" if log else "")
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environment, check=False
    )


def test_maintenance_frees_a_full_disk_and_says_so_in_its_log_and_its_account(full: Place) -> None:
    place = full
    old = place.write("logs/archive/old.out.gz", b"z" * 300_000, days=60)
    last = place.write("checkpoints/last_1.pt", b"c" * 300_000, days=60)
    place.write("checkpoints/last_2.pt", days=1)
    packed = place.write("logs/train.out", b"line\n" * 50_000, days=8)
    log = place.write("logs/cron_maint.out", b"x" * 4096)
    JobStatus(
        job="maintenance",
        pid=1,
        started_at_utc="2026-01-01T02:00:00+00:00",
        ended_at_utc="2026-01-01T02:00:01+00:00",
        duration_s=1.0,
        exit_code=0,
    ).write(status_path(place.config, "maintenance"))
    fill_disk(place.exp)
    assert is_full(place.exp)
    answer = call(place, log)
    assert answer.returncode == ExitCode.PASS, log.read_text()
    assert not old.exists()
    assert not last.exists()
    assert not packed.exists(), "there was room for its archive once the rest was gone"
    (kept,) = (place.exp / "reports").glob("maintenance_*.json")
    assert len(MaintenanceRecord.read(kept).done) == 3
    status = read_status(place.config, "maintenance")
    assert status is not None
    assert status.started_at_utc > "2026-01-02"
    assert "3 steps done" in log.read_text()


def test_an_account_that_finds_no_room_is_told_and_the_run_before_is_not_shown_for_it(
    full: Place,
) -> None:
    place = full
    # Nothing it deletes makes room: another name of each file stays.
    old = place.write("logs/archive/old.out.gz", b"z" * 5000, days=60)
    os.link(old, place.exp / "another.gz")
    path = status_path(place.config, "maintenance")
    track_job(place.config, "maintenance", lambda: 0, show=lambda _: None)
    before = read_status(place.config, "maintenance")
    fill_disk(place.exp)
    answer = call(place)
    assert answer.returncode == ExitCode.SKIPPED
    assert not old.exists()
    assert "No space left on device" in answer.stderr
    assert "  delete logs/archive/old.out.gz" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: 1 step done, ")
    assert not list((place.exp / "reports").glob("maintenance_*"))
    status = read_status(place.config, "maintenance")
    assert status != before
    assert status is not None
    assert status.exit_code == ExitCode.SKIPPED, path.read_text()


def test_what_needs_no_room_is_done_before_what_does(place: Place) -> None:
    place.write("logs/a.out", b"line\n" * 9000, days=8)
    place.write("logs/b.out", b"line\n" * 100, days=8)
    place.write("logs/archive/old.out.gz", days=60)
    place.write("checkpoints/last_1.pt", days=60)
    place.write("checkpoints/last_2.pt")
    place.write("reports/disk_20200101.txt", days=900)
    verbs = [step.verb for step in place.plan().plan.actions]
    assert verbs == ["delete"] * 3 + ["compress"] * 2
    packed = [step.target for step in place.plan().plan.actions[3:]]
    assert packed == ["logs/b.out", "logs/a.out"], "the small ones make room for the large"


def test_a_job_that_cannot_say_how_it_ended_is_not_shown_as_the_run_before(full: Place) -> None:
    config = full.config
    track_job(config, "index", lambda: 0, show=lambda _: None)
    path, said = status_path(config, "index"), list[str]()
    assert "pass" in read_status(config, "index").describe()  # type: ignore[union-attr]
    fill_disk(full.exp)

    def broken() -> int:
        under_way = read_status(config, "index")
        assert under_way is not None
        assert under_way.exit_code is None
        return 5

    assert track_job(config, "index", broken, show=said.append) == 5
    assert read_status(config, "index").exit_code == 5  # type: ignore[union-attr]
    assert said == []
    path.unlink()
    (full.exp / "more.bin").write_bytes(b"")
    fill_disk(full.exp)
    assert track_job(config, "index", lambda: 5, show=said.append) == 5
    assert "how it ended (deadline (5)) is not kept: cannot write" in said[0]
    assert read_status(config, "index") is None


def test_where_not_even_the_old_account_can_be_written_over_it_is_emptied(
    full: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = status_path(full.config, "bench")
    good = JobStatus(job="bench", pid=1, started_at_utc="2026-01-01T00:00:00+00:00", exit_code=0)
    good.write(path)
    fill_disk(full.exp)
    long = good.model_copy(update={"dead_man": "not told " * 1000})
    assert "No space left" in str(keep_status(path, long))
    with pytest.raises(Exception, match=r"bench\.json: empty: there was no room to keep"):
        read_status(full.config, "bench")


def test_a_scheduled_job_runs_though_nothing_can_be_kept(full: Place) -> None:
    fill_disk(full.exp)
    said: list[str] = []
    job = Job("health", "x", lambda *_: (("true",),))
    assert run_job(full.config, job, Programs(Path("/"), Path("/usr/bin")), show=said.append) == 0
    assert any("is not kept" in line for line in said)


def test_the_health_watch_counts_restarts_and_alerts_on_a_full_disk(full: Place) -> None:
    made = full.config_path.parent / "restarted"
    made.write_bytes(b"-" * 4000)
    with full.config_path.open("a") as file:
        command = f"dd if=/dev/zero of={made} bs=1 count=1 conv=notrunc"
        urls = "internal_url: 'http://127.0.0.1:9/health'"
        file.write(f"health: {{{urls}, restart_command: {command!r}, settle_s: 0}}\n")
    path, alerts = health_state_path(full.config), list[str]()
    read_memory(path, 0)[0].write(path)
    fill_disk(full.exp)
    first = watch_health(full.config, alerts.append)
    assert (first.actions, first.internal_failures) == ((), 1)
    second = watch_health(full.config, alerts.append)
    assert second.actions == ("restart", "alert")
    assert made.read_bytes()[:1] == b"\0"
    assert any(text.startswith("PillSnap ALERT: the app is down") for text in alerts)


def test_a_watch_without_a_state_on_a_full_disk_remembers_elsewhere(full: Place) -> None:
    with full.config_path.open("a") as file:
        urls = "internal_url: 'http://127.0.0.1:9/health'"
        file.write(f"health: {{{urls}, restart_command: 'true', settle_s: 0}}\n")
    fill_disk(full.exp)
    alerts = list[str]()
    actions = [watch_health(full.config, alerts.append).actions for _ in range(3)]
    assert actions == [(), ("restart", "alert"), ()]
    assert sum(text.startswith("PillSnap ALERT") for text in alerts) == 1
    assert sum(text.startswith("PillSnap TROUBLE") for text in alerts) == 1


def test_a_rotation_whose_state_finds_no_room_deletes_what_is_over_the_number_kept(
    full: Place,
) -> None:
    log = full.write("logs/cloudflared.log", b"line\n" * 100)
    for day in range(10, 23):
        full.write(f"logs/cloudflared.log.202601{day}.gz", b"z" * 100)
    fill_disk(full.exp)
    said: list[str] = []
    record = run_rotation(full.config, log=log, show=said.append)
    assert len(record.deleted) == 3


def test_a_lock_is_held_where_there_is_no_room_for_its_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=8") as disk:
        for number in range(9):
            try:
                (disk / str(number)).touch()
            except OSError:
                break
        path = disk / "job.lock"
        with hold_lock(path, "the first"):
            assert not path.exists()
            with pytest.raises(BusyError), hold_lock(path, "the second"):
                pass
            (disk / "0").unlink()
            with pytest.raises(BusyError), hold_lock(path, "the third"):
                pass
        with hold_lock(path, "the fourth"):
            assert path.exists()


def test_a_lease_that_is_renewed_counts_as_that_on_a_full_disk(full: Place) -> None:
    folder = full.exp / "export" / LEASE_FOLDER
    lease = Lease(
        host="h",
        address="127.0.0.1",
        port=1,
        pid=1,
        exp_dir=Path("e"),
        env_file=Path("f"),
        root=Path("r"),
        models={},
    )
    path = lease.write(_made(folder) / lease.file_name)
    fill_disk(full.exp)
    assert not FoundLease(path, lease).may_be_outdated()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_overwriting_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"a long account of a run that passed")
    overwrite(path, b"short")
    assert path.read_bytes() == b"short"


def test_a_round_of_a_full_disk_is_repeatable(full: Place) -> None:
    full.write("logs/archive/old.out.gz", b"z" * 9000, days=60)
    fill_disk(full.exp)
    show = list[str]().append
    assert len(run_maintenance(full.config, show=show, now=NOW).record.done) == 1
    assert run_maintenance(full.config, show=show, now=NOW + timedelta(hours=1)).record.done == ()
