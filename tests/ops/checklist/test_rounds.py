"""The checklist knows of maintenance rounds that left no record."""

from __future__ import annotations

import os
import subprocess

import pytest

from opslib.ops.checklist.maintenance import check_maintenance
from opslib.upkeep.job_status import JobStatus, status_path
from opslib.upkeep.maintenance import run_maintenance
from tests.ops.checklist.conftest import Plant


@pytest.mark.parametrize("alive", [True, False])
def test_the_checklist_tells_of_a_round_that_was_cut_off(resting: Plant, alive: bool) -> None:
    run_maintenance(resting.config(), show=lambda _: None)
    gone = subprocess.Popen(["true"])
    gone.wait()
    pid = os.getpid() if alive else gone.pid
    path = resting.config().records_dir / "maintenance_20991231-020000.jsonl"
    path.write_text(f'{{"round": {{"pid": {pid}, "exp_dir": "x"}}}}\n')
    answer = check_maintenance(resting.visit())
    assert (answer.state == "ok") is alive, answer
    assert any("was killed after 0 steps" in line for line in answer.evidence) is not alive


def test_the_checklist_tells_of_a_run_that_ended_badly_and_left_no_record(resting: Plant) -> None:
    run_maintenance(resting.config(), show=lambda _: None)
    assert check_maintenance(resting.visit()).state == "ok"
    JobStatus(
        job="maintenance", pid=1, started_at_utc="2099-01-01T02:00:00+00:00", exit_code=2
    ).write(status_path(resting.config(), "maintenance"))
    answer = check_maintenance(resting.visit())
    assert answer.state == "attention"
    assert any("ended badly: usage (2)" in line for line in answer.evidence)
