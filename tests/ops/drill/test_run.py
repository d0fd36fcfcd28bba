"""H-3: the whole drill on the reference service: nothing fails, the experiment stays as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.files import sha256_tree
from opslib.core.models import find_model_files
from opslib.ops.drill.faults import list_faults
from opslib.ops.drill.record import DrillRecord
from opslib.ops.drill.rehearsal import read_rss_bytes
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.run import keep_drill, run_drill
from opslib.serving.client import ServiceClient
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.ops.drill.conftest import make_drill_place
from tests.running import run_python
from tests.serving.conftest import Place
from tests.waiting import await_that

pytestmark = pytest.mark.alone

DRILL = (sys.executable, "-m", "opslib.cli", "drill")


def digest(place: Place) -> str:
    """One digest over everything in the experiment."""
    return sha256_tree([path for path in place.config.exp_dir.rglob("*") if path.is_file()])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One experiment for the tests of this module."""
    return make_drill_place(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the drill of this module prints."""
    return []


@pytest.fixture(scope="module")
def drilled(place: Place, said: list[str]) -> tuple[DrillRecord, str]:
    """The record of a short drill by the command, and the experiment's digest before it."""
    before = digest(place)
    path = place.config_path.with_name("drill.json")
    answer = run_python(
        [*DRILL, "--config", str(place.config_path), "--json", str(path)],
        env=os.environ | {"COLUMNS": "200"},
        timeout=120,
    )
    said.append(answer.stdout)
    record = DrillRecord.read(path)
    assert answer.returncode == record.exit_code, answer.stderr
    return record, before


def test_nothing_fails_and_every_promise_is_kept(drilled: tuple[DrillRecord, str]) -> None:
    record, _ = drilled
    assert record.verdict != "fail", record.finding
    assert (record.failed, record.mixed) == (0, 0)
    assert all(one.held for one in record.injections), record.injections
    assert len(record.injections) == 23
    assert record.target == "staging"


def test_the_experiment_itself_is_not_touched(
    drilled: tuple[DrillRecord, str], place: Place
) -> None:
    assert digest(place) == drilled[1]


def test_the_command_prints_each_line_of_the_verdict(
    drilled: tuple[DrillRecord, str], said: list[str]
) -> None:
    record, _ = drilled
    shown = " ".join(" ".join(said).split())
    for check in record.checks:
        assert check.name.split(",")[0] in shown
    assert f"{record.verdict}: {record.finding}" in shown


def test_every_bad_model_is_refused_by_the_stage_that_the_list_names(
    drilled: tuple[DrillRecord, str],
) -> None:
    offered = [one for one in drilled[0].injections if one.promised.startswith("refused")]
    assert [one.injected for one in offered] == [fault.name for fault in list_faults()]
    for one, fault in zip(offered, list_faults(), strict=True):
        assert one.seen.endswith(f"stage {fault.stage}"), one


def test_swaps_are_full_loads_and_rollbacks_are_instant(
    drilled: tuple[DrillRecord, str],
) -> None:
    record, _ = drilled
    assert {one.resident for one in record.events_of("swap")[:2]} == {False}
    assert {one.resident for one in record.events_of("rollback")} == {True}


def test_the_record_knows_both_models_by_their_digests(
    drilled: tuple[DrillRecord, str], place: Place
) -> None:
    record, _ = drilled
    assert record.model.sha256 == find_model_files(place.second).digest()
    assert record.other_model.sha256 == find_model_files(place.first).digest()


def test_only_the_swaps_that_were_asked_for_are_counted(
    drilled: tuple[DrillRecord, str], place: Place
) -> None:
    record, _ = drilled
    assert len(record.events_of("swap")) == place.config.drill.swaps
    assert len(record.events_of("rollback")) == place.config.drill.swaps


def test_two_reloads_at_once_really_meet(drilled: tuple[DrillRecord, str]) -> None:
    assert sorted(one.status or 0 for one in drilled[0].events_of("two at once")) == [200, 409]


def test_the_kill_is_felt_and_the_service_comes_back_with_the_model_it_served(
    drilled: tuple[DrillRecord, str],
) -> None:
    record, _ = drilled
    (kill,) = record.events_of("kill -9")
    assert kill.ready_s is not None
    window = record.window("kill -9")
    assert window is not None
    assert window.failed > 0
    note = next(one for one in record.injections if one.injected.startswith("kill -9"))
    assert "after model-a" in note.seen  # not the one that is found first: that is model-b


def test_the_record_holds_every_request_and_can_be_read_again(
    drilled: tuple[DrillRecord, str], tmp_path: Path, place: Place
) -> None:
    record, _ = drilled
    again = DrillRecord.read(keep_drill(record, place.config, tmp_path / "drill.json"))
    assert again == record
    assert again.raw is not None
    assert len(again.raw.due_s) == record.requests
    assert again.slim().raw is None
    assert again.slim().checks == record.checks


def test_memory_is_read_from_the_process_itself() -> None:
    here = read_rss_bytes(os.getpid())
    assert here is not None
    assert here > 10_000_000
    assert read_rss_bytes(2**22 + 1) is None


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_running_service_is_brought_home_even_when_the_drill_is_cut_short(
    tmp_path: Path, end: signal.Signals
) -> None:
    """SIGKILL takes the whole process group, as a kernel's end does."""
    key = make_key()
    own = make_drill_place(tmp_path, "service: {workers: 1}\n")
    variables = {"API_KEY": key, "RATE_LIMIT_PER_MIN": "1000000"}
    with (
        start_service(own.config_path, variables=variables) as service,
        ServiceClient(service.url, key, own.config.client) as client,
    ):
        found = client.version()
        process = subprocess.Popen(
            [*DRILL, "--url", service.url, "--config", str(own.config_path), "--swaps", "500"],
            env=os.environ | {"API_KEY": key},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        await_that(lambda: client.version().sha256 != found.sha256, "the first swap")
        assert process.poll() is None
        if end is signal.SIGKILL:
            os.killpg(process.pid, end)
        else:
            process.send_signal(end)
        output, _ = process.communicate(timeout=40)
        assert process.returncode == (143 if end is signal.SIGTERM else -end), output
        await_that(lambda: client.version().sha256 == found.sha256, "the way home")
    assert key not in output.decode()
    assert not list(own.export.glob(".drill.*"))


def test_a_service_that_limits_requests_is_not_drilled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()
    monkeypatch.setenv("API_KEY", key)
    with start_service(place.config_path, variables={"API_KEY": key}) as service:
        from opslib.core.errors import InputError

        with pytest.raises(InputError, match="larger RATE_LIMIT_PER_MIN"):
            run_drill(place.config, DrillRequest(url=service.url))
