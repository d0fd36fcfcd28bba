"""H-8: `pillops schedule` puts the jobs into the crontab, shows them and takes them out again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opslib.core.errors import InputError
from opslib.upkeep import crontab
from opslib.upkeep.job_status import JobStatus, read_status, status_path
from opslib.upkeep.jobs import JOBS, Job, Place
from opslib.upkeep.schedule import (
    block_text,
    crontab_notes,
    edit_to_install,
    edit_to_remove,
    find_place,
    in_words,
    make_entries,
    next_run,
)
from tests.models import write_config
from tests.running import run_python
from tests.upkeep.crontabs import Host, make_host

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = b'# mine, caf\xe9\nMAILTO=""\n*/5 * * * * /usr/bin/true \\% x\n\n'


def place_of(host: Host) -> Place:
    return Place(root=host.folder, bin=host.folder / ".venv" / "bin")


def line_of(host: Host, job: str) -> str:
    entries = make_entries(host.config, place_of(host))
    return next(entry.line for entry in entries if entry.job.name == job)


def test_h8_the_maintenance_line_is_the_documented_one(host: Host) -> None:
    found = f"0 2 * * * bash {host.folder}/scripts/maintenance.sh >> "
    assert line_of(host, "maintenance") == found + f"{host.folder}/exp/logs/cron_maint.out 2>&1"


def test_the_other_jobs_go_through_the_runner(host: Host) -> None:
    pillops = host.folder / ".venv" / "bin" / "pillops"
    for name in ("index", "release", "bench", "drill"):
        command = f"{pillops} schedule run {name} >> {host.folder}/exp/logs/cron_{name}.out 2>&1"
        assert line_of(host, name).endswith(command)


def test_a_configuration_that_cron_would_not_find_is_named(host: Host) -> None:
    other = write_config(host.folder / "exp")
    moved = Host(host.folder, other)
    assert f"maintenance.sh --config {other} >>" in line_of(moved, "maintenance")
    assert f"schedule run bench --config {other} >>" in line_of(moved, "bench")


def test_another_environment_is_told_to_the_script(host: Host) -> None:
    entries = make_entries(host.config, Place(root=host.folder, bin=Path("/opt/venv/bin")))
    start = "0 2 * * * env PILLSNAP_PYTHON=/opt/venv/bin/python bash "
    assert entries[0].line.startswith(start)


def test_paths_with_blanks_and_percent_signs_reach_the_shell_whole(tmp_path: Path) -> None:
    host = make_host(tmp_path / "a b%c'd")
    for line in block_text(host.config, place_of(host)).splitlines()[2:-1]:
        assert not re.search(r"(?<!\\)%", line)
        words = shlex.split(line.replace(r"\%", "%"))
        assert words[-2].startswith(str(host.folder))
        assert words[-1] == "2>&1"


def test_a_path_with_a_line_end_is_refused(tmp_path: Path) -> None:
    host = make_host(tmp_path / "a\nb")
    with pytest.raises(InputError, match="line end"):
        block_text(host.config, place_of(host))


def test_a_job_that_is_off_has_no_line(host: Host) -> None:
    off = Host(host.folder, write_config(host.folder, "schedule: {bench: null}\n"))
    block = block_text(off.config, place_of(off))
    assert "run bench" not in block
    assert "health" not in block
    assert "run drill" in block


def test_installing_twice_is_installing_once_and_removing_leaves_the_rest(host: Host) -> None:
    host.table.write_bytes(FOREIGN)
    first = host.call("install")
    assert first.returncode == 0, first.stderr
    installed = host.table.read_bytes()
    assert installed.startswith(FOREIGN)
    again = host.call("install")
    assert "nothing to do" in again.stdout
    assert host.table.read_bytes() == installed
    (backup,) = (host.config.exp_dir / "logs").glob("crontab-*.bak")
    assert backup.read_bytes() == FOREIGN
    assert backup.stat().st_mode & 0o077 == 0
    removed = host.call("remove")
    assert removed.returncode == 0, removed.stderr
    assert host.table.read_bytes() == FOREIGN
    assert "nothing to do" in host.call("remove").stdout


def test_two_changes_within_a_second_keep_both_tables(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crontab, "stamp", lambda *_: "20260101-000000")
    host.table.write_bytes(FOREIGN)
    for edit in (
        partial(edit_to_install, host.config, place_of(host)),
        partial(edit_to_remove, host.config),
    ):
        assert not edit().plan().execute().skipped
    kept = [path.read_bytes() for path in (host.config.exp_dir / "logs").glob("crontab-*.bak")]
    assert len(kept) == 2
    assert FOREIGN in kept


def test_a_changed_configuration_renews_the_block_where_it_stands(host: Host) -> None:
    host.call("install")
    host.table.write_text(host.table.read_text() + "1 1 * * * true\n")
    write_config(host.folder, 'schedule: {release: "7 7 * * *"}\n')
    assert "not as configured now" in host.call("show").stdout
    shown = host.call("install").stdout
    assert "- 30 3 * * 0" in shown
    assert "+ 7 7 * * *" in shown
    table = host.table.read_text()
    assert table.endswith("1 1 * * * true\n")
    assert table.count("schedule run release") == 1


def test_a_dry_run_shows_the_lines_and_touches_nothing(host: Host) -> None:
    host.table.write_bytes(FOREIGN)
    answer = host.call("install", "--dry-run")
    assert re.search(
        r"^\+ 0 2 \* \* \* .*bash .*/scripts/maintenance\.sh", answer.stdout, re.MULTILINE
    )
    assert "dry run: nothing was changed" in answer.stdout
    assert host.table.read_bytes() == FOREIGN
    assert not (host.config.exp_dir / "logs").exists()


def test_damaged_markers_are_refused_and_nothing_is_changed(host: Host) -> None:
    host.call("install")
    damaged = host.table.read_text().rsplit("# <<<", 1)[0]
    host.table.write_text(damaged)
    for word in ("install", "remove", "show"):
        answer = host.call(word)
        assert answer.returncode == 2
        assert "has no end" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
    assert host.table.read_text() == damaged


def test_the_demo_is_scheduled_only_when_asked(host: Host) -> None:
    (host.config.exp_dir / ".demo.json").write_text("{}")
    refused = host.call("install")
    assert refused.returncode == 2
    assert "--demo" in refused.stderr
    assert not host.table.exists()
    taken = host.call("install", "--demo")
    assert taken.returncode == 0, taken.stderr
    assert f"demo experiment at {host.config.exp_dir}" in taken.stdout


def test_an_experiment_that_is_not_there_is_refused(host: Host) -> None:
    host.config.exp_dir.rmdir()
    answer = host.call("install")
    assert answer.returncode == 2
    assert "paths.exp_dir" in answer.stderr
    assert not host.config.exp_dir.exists()


def test_a_variable_that_cron_would_not_have_is_refused(host: Host) -> None:
    environment = host.environment | {"PILLSNAP_BENCH__SEED": "7"}
    answer = host.call("install", environment=environment)
    assert answer.returncode == 2
    assert "PILLSNAP_BENCH__SEED: set in this shell, unknown to cron" in answer.stderr


def test_without_a_crontab_program_every_word_ends_with_one_line(host: Host) -> None:
    for word in ("show", "install", "remove"):
        answer = host.call(word, environment={"PATH": "/nonexistent"})
        assert answer.returncode == 2
        assert answer.stderr.startswith("error: crontab: no such program here")
        assert len(answer.stderr.splitlines()) == 1


def test_installs_at_the_same_time_lose_nobody(host: Host) -> None:
    host.table.write_bytes(FOREIGN)
    configs = []
    for index in range(4):
        folder = host.folder / f"checkout{index}"
        (folder / "exp").mkdir(parents=True)
        configs.append(write_config(folder))
    running = [
        subprocess.Popen(
            host.command("install", config=config),
            env=host.environment | {"CRONTAB_TAKES_S": "0.3"},
            stdout=subprocess.DEVNULL,
        )
        for config in configs
    ]
    assert [one.wait(60) for one in running] == [0, 0, 0, 0]
    table = host.table.read_bytes()
    assert table.startswith(FOREIGN)
    for config in configs:
        assert table.count(f">>> pillops schedule of {config} >>>".encode()) == 1


def test_show_says_when_how_it_ended_and_in_which_zone(host: Host) -> None:
    JobStatus(
        job="release",
        pid=1,
        started_at_utc="2026-11-01T03:30:00+00:00",
        ended_at_utc="2026-11-01T03:30:42+00:00",
        duration_s=42.0,
        exit_code=3,
        dead_man="told of the failure",
    ).write(status_path(host.config, "release"))
    before = host.call("show")
    assert "not installed" in before.stdout
    host.call("install")
    shown = host.call("show", environment=host.environment | {"COLUMNS": "200"}).stdout
    assert re.search(r"maintenance +at 02:00 every day +\d{4}-\d\d-\d\d 02:00 +never", shown)
    assert "gate failed (3) after 42 s; dead man told of the failure" in shown
    assert re.search(r"health +off +– +never", shown)
    assert "the host's time zone" in shown
    assert "installed in your crontab" in shown


def test_an_account_that_cannot_be_read_is_shown_as_such(host: Host) -> None:
    path = status_path(host.config, "bench")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    shown = host.call("show", environment=host.environment | {"COLUMNS": "250"})
    assert shown.returncode == 0
    assert f"unknown: {path}: not a job-status/1 record" in shown.stdout


def test_a_run_that_was_cut_off_is_not_called_under_way() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    status = JobStatus(job="bench", pid=gone.pid, started_at_utc="2026-11-01T03:30:00+00:00")
    assert "cut off" in status.describe()
    assert status.exit_code is None


def test_the_next_run_follows_the_clock_of_the_host() -> None:
    seoul = ZoneInfo("Asia/Seoul")
    now = datetime(2026, 11, 25, 16, 0, tzinfo=UTC).astimezone(seoul)  # 01:00 on the 26th there
    assert next_run("0 2 * * *", now).isoformat() == "2026-11-26T02:00:00+09:00"
    assert in_words("30 3 * * 0") == "at 03:30 on Sunday"


def test_what_the_crontab_sets_above_the_jobs_is_pointed_out(host: Host) -> None:
    notes = crontab_notes(host.config, "SHELL=/usr/bin/fish\nCRON_TZ=Asia/Seoul\n0 1 * * * true\n")
    assert "SHELL=/usr/bin/fish" in notes[0]
    assert "CRON_TZ=Asia/Seoul" in notes[1]
    assert crontab_notes(host.config, 'SHELL="/bin/bash"\nPATH=/bin\n') == []


def test_every_job_has_a_key_and_a_dead_man(host: Host) -> None:
    names = {job.name for job in JOBS}
    assert names == set(type(host.config.schedule.dead_man).model_fields)
    assert names <= set(type(host.config.schedule).model_fields)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_program_that_a_job_starts_is_in_this_checkout(job: Job, host: Host) -> None:
    place = find_place(sys.executable)
    for command in job.commands(place, host.config, datetime.now(UTC)):
        for word in command:
            assert Path(word).exists() or not word.startswith(str(ROOT)), f"{word} is missing"
        if command[0] == place.pillops and command[1] == "run":
            assert (ROOT / "notebooks" / f"{command[2]}.ipynb").exists()
        elif command[0] == place.pillops:
            words = [word for word in command[1:] if not word.startswith("-")]
            run_python([sys.executable, "-m", "opslib.cli", *words, "--help"], check=True)


def test_h8_the_maintenance_keeps_its_account_however_it_is_started(host: Host) -> None:
    script = ROOT / "scripts" / "maintenance.sh"
    environment = host.environment | {"PILLSNAP_PYTHON": sys.executable}
    subprocess.run(
        ["bash", script, "--config", host.config_path],
        env=environment,
        capture_output=True,
        check=True,
    )
    status = read_status(host.config, "maintenance")
    assert status is not None
    assert status.exit_code == 0


def test_looking_at_the_schedule_loads_nothing_heavy(host: Host) -> None:
    heavy = {"numpy", "pandas", "torch", "onnxruntime", "papermill", "httpx", "matplotlib"}
    code = (
        "import sys; from opslib import cli; from opslib.telling import doors; "
        f"doors.call_app(cli.app, ['schedule', 'show', '--config', {str(host.config_path)!r}]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=host.environment,
        check=True,
    )
    assert not set(answer.stderr.split()) & heavy
