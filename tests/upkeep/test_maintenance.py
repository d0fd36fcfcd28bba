"""H-1: one nightly job: its doors, exit codes, record, and what it refuses before it begins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.errors import BusyError, ConfigError
from opslib.core.locks import hold_lock
from opslib.core.records import Record
from opslib.upkeep.maintenance import LOCK_NAME, plan_maintenance
from opslib.upkeep.maintenance_record import MaintenanceRecord
from tests.running import run_python
from tests.turns import looped, turns
from tests.upkeep.killing import kill_while_cleaning
from tests.upkeep.places import NOW, Place, set_age, stamp_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "maintenance.sh"


def call(
    place: Place, *arguments: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What the script runs, as the script does."""
    environment = {k: v for k, v in os.environ.items() if k != "API_KEY"}
    command = [sys.executable, "-m", "opslib.upkeep.maintain_command", *arguments]
    return run_python(
        [*command, "--config", place.config_path], env=environment | (variables or {})
    )


def fill(place: Place) -> None:
    """Give the duties something to do."""
    for name, days in (
        ("logs/train.out", 8),
        ("logs/archive/old.out.gz", 31),
        ("checkpoints/last_1.pt", 15),
        ("checkpoints/last_2.pt", 1),
        ("reports/disk_20200101.txt", 400),
        ("export/.m.onnx.pillops-0123456789abcdef.tmp", 2),
    ):
        set_age(place.write(name), days)
    for number in range(7):
        place.write_model(f"model-{number}.onnx", days=9 - number)
    report = place.config.report_dir / "2020-01-01" / "000000-01_bench-abcdef"
    report.mkdir(parents=True)
    (report.parent / "000001-01_bench-abcdef").mkdir()


def test_the_script_is_executable_strict_and_thin() -> None:
    text = SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
    assert "set -euo pipefail" in text
    assert len(text.splitlines()) < 25
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


def test_it_says_which_experiment_it_touches_and_what_it_does(place: Place) -> None:
    fill(place)
    answer = call(place)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"experiment at {place.exp}, ")
    assert "compress logs/train.out" in answer.stdout
    assert "delete checkpoints/last_1.pt" in answer.stdout
    assert "steps done" in answer.stdout
    record = next((place.exp / "reports").glob("maintenance_*.json"))
    assert str(record) in answer.stdout


def test_the_demo_is_called_so(place: Place) -> None:
    (place.exp / ".demo.json").write_text("{}")
    assert call(place, "--dry-run").stdout.startswith("the embedded demo experiment at ")


def test_a_dry_run_shows_the_same_plan_and_changes_nothing(place: Place) -> None:
    fill(place)
    before, folders = place.files(), set(place.exp.rglob("*"))
    answer = call(place, "--dry-run")
    assert answer.returncode == 0
    assert "dry run: nothing was changed" in answer.stdout
    assert place.files() == before
    assert set(place.exp.rglob("*")) == folders
    shown = [line for line in answer.stdout.splitlines() if line.startswith("  delete")]
    done = call(place).stdout
    assert shown
    assert all(line in done for line in shown)


def test_a_second_run_has_nothing_to_do(place: Place) -> None:
    fill(place)
    duties = [item.duty for item in place.run().record.done]
    assert duties == [
        "log archive",
        "models",
        "models",
        "checkpoints",
        "reports",
        "daily records",
        "leftovers",
        "logs",  # compressing needs the room that deleting makes
    ]
    assert not place.targets()
    assert place.run().record.done == ()


def test_the_record_says_what_was_done_why_and_what_it_freed(place: Place) -> None:
    fill(place)
    before = sum(len(data) for data in place.files().values())
    done = place.run()
    made = {f"reports/disk_{NOW:%Y%m%d}.txt", "reports/disk_history.jsonl", ".maintenance.lock"}
    made |= {str(done.path.relative_to(place.exp))}
    after = sum(len(data) for name, data in place.files().items() if name not in made)
    record = MaintenanceRecord.read(done.path)
    assert record == done.record
    assert isinstance(record, Record)
    assert record.freed_bytes == before - after == sum(record.freed_by_duty_bytes.values())
    assert all(item.why for item in record.done)
    assert record.limits["log_days"] == 7
    assert done.path.name == f"maintenance_{stamp_of(0)}.json"


def test_a_second_run_at_the_same_time_is_told_so(place: Place) -> None:
    fill(place)
    before = place.files()
    with hold_lock(place.exp / LOCK_NAME, "maintenance"):
        with pytest.raises(BusyError):
            place.run()
        answer = call(place)
        assert answer.returncode == 6
        assert "the lock is held by maintenance" in answer.stderr
    assert {k: v for k, v in place.files().items() if not k.startswith(".maint")} == before


def test_items_that_were_skipped_have_an_exit_code_of_their_own(place: Place) -> None:
    set_age(place.write(f"logs/{'x' * 245}.out"), 400)
    set_age(place.write("checkpoints/last_1.pt"), 400)
    place.write("checkpoints/last_2.pt", days=1)
    answer = call(place)
    assert answer.returncode == 9
    assert "1 item skipped; see " in answer.stderr
    assert "skipped logs/xxx" in answer.stdout
    assert not (place.exp / "checkpoints" / "last_1.pt").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LOG_DAYS", "0"),
        ("LOG_DAYS", "-7"),
        ("LOG_DAYS", "seven"),
        ("ARCHIVE_DAYS", "999999999"),
        ("KEEP_ONNX", "0"),
        ("ROTATE_MB", "nan"),
        ("ROTATE_MB", "0"),
        ("REPORT_DAYS", "1e9"),
        ("DISK_WARN_PCT", "101"),
        ("REOPENED_LOGS", "../../etc/passwd"),
        ("KEEP_ONXX", "5"),
    ],
)
def test_nonsense_in_the_configuration_is_refused_before_anything_is_touched(
    place: Place, key: str, value: str
) -> None:
    fill(place)
    before = place.files()
    answer = call(place, variables={f"PILLSNAP_MAINTENANCE__{key}": value})
    assert answer.returncode == 2
    assert f"PILLSNAP_MAINTENANCE__{key}" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert place.files() == before


def test_lists_may_be_given_by_variables(place: Place) -> None:
    variables = {
        "PILLSNAP_MAINTENANCE__DISKS": "/,/no-such-disk",
        "PILLSNAP_MAINTENANCE__REOPENED_LOGS": "api.out, api.err",
    }
    answer = call(place, variables=variables)
    assert answer.returncode == 0, answer.stderr
    record = MaintenanceRecord.read(next((place.exp / "reports").glob("maintenance_*.json")))
    assert any(note.startswith("/no-such-disk: no such folder") for note in record.notes)


def test_an_experiment_that_is_not_there_is_named_and_not_made(place: Place) -> None:
    place.exp.rename(place.exp.with_name("unmounted"))
    for arguments in ((), ("--dry-run",)):
        answer = call(place, *arguments)
        assert answer.returncode == 2
        assert f"paths.exp_dir: {place.exp}: no such folder; is its disk mounted?" in answer.stderr
    assert not place.exp.exists()


def test_what_was_done_is_recorded_though_the_disk_report_cannot_be_written(place: Place) -> None:
    place.write("logs/archive/old.out.gz", days=60)
    (place.exp / "reports" / f"disk_{NOW:%Y%m%d}.txt").mkdir(parents=True)
    record = MaintenanceRecord.read(place.run().path)
    assert [item.target for item in record.done] == ["logs/archive/old.out.gz"]
    assert [one.target for one in record.skipped] == [f"reports/disk_{NOW:%Y%m%d}.txt"]


def test_a_broken_env_file_is_refused_before_anything_is_touched(place: Place) -> None:
    fill(place)
    before = place.files()
    place.config_path.with_name(".env").write_text("RATE_LIMIT_PER_MIN=many\n")
    with pytest.raises(ConfigError, match="RATE_LIMIT_PER_MIN"):
        place.run()
    assert {k: v for k, v in place.files().items() if not k.startswith(".maint")} == before


def test_an_empty_experiment_gets_its_folders_and_its_disk_report(place: Place) -> None:
    record = place.run().record
    assert record.done == record.skipped == ()
    assert (place.exp / "logs" / "archive").is_dir()
    assert (place.exp / "reports" / f"disk_{NOW:%Y%m%d}.txt").is_file()


@pytest.mark.parametrize("hours", [-100_000, -9, 9, 100_000])
def test_a_clock_that_jumps_deletes_nothing_that_is_protected(place: Place, hours: int) -> None:
    place.write("checkpoints/best.pt", days=500)
    place.write("checkpoints/last_9.pt", days=1)
    for number in range(9):
        place.write_model(f"model-{number}.onnx", days=9 - number)
    (place.exp / "export" / "latest.onnx").symlink_to("model-1.onnx")
    place.config_path.with_name(".env").write_text("MODEL_PATH=exp/export/model-2.onnx\n")
    place.run(NOW + timedelta(hours=hours))
    left = {path.name for path in place.exp.rglob("*") if path.is_file()}
    wanted = {"best.pt", "last_9.pt", "model-1.onnx", "model-2.onnx", "model-8.onnx"}
    assert wanted <= left


@looped
def test_killed_at_any_moment_it_ends_where_an_undisturbed_round_ends(tmp_path: Path) -> None:
    calm, stormy, met = kill_while_cleaning(tmp_path, kills=turns(2, 5), seed=1)
    assert met > 0, "no kill met unfinished work"
    assert stormy == calm


def test_planning_loads_nothing_heavy() -> None:
    code = (
        "import sys, opslib.upkeep.maintain_command, opslib.upkeep.maintenance;print(*sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "papermill", "torch", "onnxruntime", "onnx", "httpx", "nbformat"}
    assert not heavy & set(answer.stdout.split())


def test_the_plan_alone_needs_no_lock(place: Place) -> None:
    with hold_lock(place.exp / LOCK_NAME, "maintenance"):
        assert plan_maintenance(place.config, now=NOW).plan.actions == ()
