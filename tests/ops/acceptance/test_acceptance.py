"""H-10: the acceptance walk takes its nine steps, goes on after a failure, and says what it saw."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import UsageError
from opslib.core.served import served_state_path
from opslib.ops.acceptance import run as acceptance
from opslib.ops.acceptance import story as acceptance_story
from opslib.ops.acceptance.record import AcceptanceRecord, AcceptanceStep
from opslib.ops.acceptance.run import open_stand_in, walk_acceptance
from opslib.ops.acceptance.steps import (
    NotRunError,
    Step,
    StepFailedError,
    Walk,
    check_health,
    health_inside,
    health_outside,
    make_release,
    rehearse_rollback,
    rehearse_schedules,
    rehearse_upkeep,
)
from opslib.serving.staging import start_service
from tests.ops.checklist.conftest import DEGRADED, answering
from tests.ops.release.restoring import make_releasable
from tests.serving.conftest import Place
from tests.upkeep.crontabs import CRONTAB
from tests.waiting import await_that

WALKER = """
import sys
from pathlib import Path
from opslib.ops.acceptance.steps import Walk, rehearse_schedules
from opslib.core.config import load_config
from opslib.serving.staging import RunningService
service = RunningService("", 0, "no key", Path())
rehearse_schedules(Walk(load_config(Path(sys.argv[1])), service, "", 5.0))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An experiment that counts as the demo."""
    found = make_releasable(tmp_path_factory.mktemp("demo"), "maintenance: {disks: [/]}\n")
    (found.config.exp_dir / ".demo.json").write_text("{}")
    return found


@pytest.fixture(scope="module")
def walk(place: Place):
    with (
        start_service(place.config_path, variables={"RATE_LIMIT_PER_MIN": "100000"}) as service,
        open_stand_in(int(service.url.rpartition(":")[2])) as outside,
    ):
        yield Walk(place.config, service, outside, budget_s=5.0)


def test_the_service_answers_inside_and_through_the_second_address(walk: Walk) -> None:
    assert health_inside(walk).startswith("200, onnx on ")
    assert "simulated by the loopback address http://127.0.0.2:" in health_outside(walk)


def test_a_degraded_service_fails_the_step() -> None:
    with answering(200, DEGRADED) as url, pytest.raises(StepFailedError, match="wanted model-b"):
        check_health(url)


def test_a_release_is_made_and_sha256sum_agrees(walk: Walk) -> None:
    assert re.match(r"release-\d{8}-\d{6}-\w+\.tar\.gz, .*sha256sum -c agrees", make_release(walk))


def test_a_rollback_is_confirmed_by_version_and_ends_where_it_began(walk: Walk) -> None:
    seen = rehearse_rollback(walk)
    assert re.match(r"(model-[ab]) to model-[ab] and back; /version confirms generation", seen)


def test_a_rollback_rehearsed_does_not_decide_what_is_served_later(walk: Walk) -> None:
    state = served_state_path(walk.config)
    before = state.read_bytes() if state.exists() else None
    rehearse_rollback(walk)
    assert (state.read_bytes() if state.exists() else None) == before


def test_maintenance_runs_and_a_rotated_log_keeps_every_line(walk: Walk) -> None:
    assert "40,000 lines of a log rotated" in rehearse_upkeep(walk)


def use_own_crontab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = folder / "crontab"
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "table"


def test_schedules_are_installed_fired_as_cron_does_and_removed(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = use_own_crontab(tmp_path, monkeypatch)
    table.write_text("0 0 * * * true\n")
    seen = rehearse_schedules(walk)
    assert "cron_maint.out grew by" in seen
    assert seen.endswith("the crontab is as it was before")
    assert table.read_text() == "0 0 * * * true\n"


def test_a_walk_killed_while_its_schedules_are_installed_leaves_the_crontab_as_it_was(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = use_own_crontab(tmp_path, monkeypatch)
    table.write_text("0 0 * * * true\n")
    walker = subprocess.Popen(
        [sys.executable, "-c", WALKER, place.config_path], start_new_session=True
    )
    await_that(lambda: "maintenance.sh" in table.read_text())
    os.killpg(walker.pid, signal.SIGKILL)  # as the runner does on Ctrl-C, SIGTERM and a deadline
    assert walker.wait() == -signal.SIGKILL
    await_that(lambda: table.read_text() == "0 0 * * * true\n")


def test_without_a_crontab_the_step_is_not_run_rather_than_passed(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRunError, match="crontab is missing"):
        rehearse_schedules(walk)


def test_a_live_experiment_is_refused(place: Place) -> None:
    marker = place.config.exp_dir / ".demo.json"
    marker.rename(marker.with_name("kept"))
    try:
        with pytest.raises(UsageError, match="on the demo alone; make it with `make demo`"):
            walk_acceptance(place.config)
    finally:
        marker.with_name("kept").rename(marker)


def test_a_step_that_fails_is_told_and_the_walk_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_walk: Walk) -> str:
        raise StepFailedError("it broke")

    def skip(_walk: Walk) -> str:
        raise NotRunError("no such thing here")

    steps = [Step("a", "x", fail), Step("b", "y", skip), Step("c", "z", lambda _walk: "fine")]
    monkeypatch.setattr(acceptance, "STEPS", steps)
    record = walk_acceptance(place.config)
    assert [step.state for step in record.steps] == ["fail", "not run", "pass"]
    assert record.verdict == "fail"
    assert "step 1, a: it broke" in record.finding
    assert AcceptanceRecord.read(acceptance.keep_acceptance(record, place.config)) == record
    frame = acceptance_story.steps_frame(record)
    assert list(frame["Result"]) == ["fail", "not run", "pass"]


def make_step(state: str) -> AcceptanceStep:
    return AcceptanceStep(number=1, title="t", command="c", state=state, took_s=0.0, evidence="e")


def test_a_step_that_was_not_run_leaves_the_verdict_open(place: Place) -> None:
    from opslib.core.lineage import record_lineage

    record = AcceptanceRecord(
        experiment="x", external="y", steps=(make_step("not run"),), lineage=record_lineage()
    )
    assert record.verdict == "inconclusive"
    assert record.model_copy(update={"steps": (make_step("pass"),)}).verdict == "pass"
