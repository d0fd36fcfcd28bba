"""Models that several services share: whoever cleans the folder learns from each what it uses."""

from __future__ import annotations

import http.server
import json
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from opslib.core.errors import InputError, StorageError
from opslib.core.files import hide_name
from opslib.core.served import ServedModel, ServedState
from opslib.serving.keys import make_key
from opslib.serving.leases import LEASE_FOLDER, Lease, find_leases
from opslib.serving.reachable import ask_services
from opslib.serving.staging import StagedService
from opslib.upkeep import claims, in_use
from tests.serving.conftest import make_place as make_serving_place
from tests.upkeep.places import Place, make_place, set_age
from tests.upkeep.test_models_prune import answering, fill, left, name_of
from tests.upkeep.test_restored_prune import restore
from tests.waiting import await_that, is_alive

MODELS = {"models", "quantized", "checkpoints", "releases", "restored releases"}


@dataclass
class Pair:
    """docs/SCALING.md's layout for two cards: experiment 1 cleans a folder from which service 2,
    of an experiment of its own, serves the older model; `spare` is used by nobody."""

    place: Place
    second: StagedService
    used: Path
    spare: Path
    exp_dir: Path

    @property
    def lease(self) -> Path:
        """The lease that service 2 left, found by what it serves."""
        found = find_leases(self.place.config)
        return next(one.path for one in found if one.lease.exp_dir == self.exp_dir)

    def fill(self) -> None:
        """Let there be a spare model that was never served; both are old."""
        self.spare.unlink(missing_ok=True)
        self.spare = self.spare.with_name(f"model-0{secrets.token_hex(4)}.onnx")
        self.spare.write_bytes(self.used.read_bytes() + b"\x12\x01A")
        for path, days in ((self.used, 40), (self.spare, 50)):
            set_age(path, days)

    def switch(self, model: Path) -> None:
        """Switch service 2 to a model."""
        running = self.second.running
        answer = httpx.post(
            f"{running.url}/reload",
            json={"model_path": str(model)},
            headers=running.headers,
            timeout=30,
        )
        assert answer.status_code == 200, answer.text

    def start_again(self) -> None:
        """Start the service anew, on the port that it had: it is no trial any more."""
        self.second.kill()
        self.second.start()

    def stop(self) -> None:
        """Let the service end in order."""
        os.kill(self.second.running.pid, signal.SIGTERM)
        await_that(self.has_ended, "the end of the service")

    def has_ended(self) -> bool:
        """Whether the service has ended."""
        return not is_alive(self.second.running.pid)

    def outdate(self) -> None:
        """Let the lease be one that was not renewed for ten minutes."""
        moment_s = self.lease.stat().st_mtime - 600
        os.utime(self.lease, (moment_s, moment_s))

    def state(self, model: Path) -> None:
        """Let the state of service 2 say that it switched to `model` last."""
        served = ServedModel(
            path=model, sha256="0" * 64, version_tag="t", generation=1, switched_at_utc=""
        )
        ServedState(current=served).write(self.exp_dir / "served.json")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and the configuration of experiment 1; one model shall be kept."""
    folder = tmp_path_factory.mktemp("shared") / "place"
    make_serving_place(folder, "maintenance: {keep_onnx: 1, disks: [/]}\n")
    return folder


@pytest.fixture(scope="module")
def kept_pair(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with start_pair(template, tmp_path_factory.mktemp("kept")) as pair:
        yield pair


@pytest.fixture
def running(kept_pair: Pair) -> Pair:
    """A pair whose service runs on after the test: the model it serves, and a spare one."""
    kept_pair.fill()
    kept_pair.switch(kept_pair.used)
    return kept_pair


@pytest.fixture
def pair(template: Path, tmp_path: Path) -> Iterator[Pair]:
    """A pair of this test's own."""
    with start_pair(template, tmp_path) as pair:
        yield pair


@contextmanager
def start_pair(template: Path, folder: Path) -> Iterator[Pair]:
    shutil.copytree(template, folder / "place", symlinks=True)
    place = Place(folder / "place" / "config.yaml")
    export = place.config.export_dir
    used, spare = export / "model-a.onnx", export / "model-0.onnx"
    key = make_key()
    text = place.config_path.read_text()
    place.config_path.write_text(text + "client: {url: 'http://127.0.0.1:9'}\n")
    place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
    exp_dir = folder / "exp-gpu1"
    variables = {
        "API_KEY": key,
        "PILLSNAP_EXP_DIR": str(exp_dir),
        "PILLSNAP_EXPORT__OUT_DIR": str(export),
        "MODEL_PATH": str(used),
    }
    with StagedService(place.config_path, variables=variables) as second:
        pair = Pair(place, second, used, spare, exp_dir)
        pair.fill()
        yield pair


def why_skipped(place: Place) -> str:
    """Maintain; nothing of the models may have been deleted: return why."""
    record = place.run().record
    assert {item.duty for item in record.skipped} == MODELS, record.skipped
    assert not [item for item in record.done if item.duty in MODELS]
    return record.skipped[0].reason


def test_a_model_that_another_experiment_s_service_serves_stays(running: Pair) -> None:
    running.place.run()
    assert running.used.exists()
    assert not running.spare.exists()


def test_what_it_switches_to_after_the_plan_was_made_stays(running: Pair) -> None:
    planned = running.place.plan()
    assert [Path(step.target).name for step in planned.plan.actions] == [running.spare.name]
    running.switch(running.spare)
    outcome = planned.plan.execute()
    assert "it is in use by now: served now, as" in outcome.skipped[0].reason
    assert running.spare.exists()


def test_once_it_was_killed_its_state_and_its_lease_decide(pair: Pair) -> None:
    pair.second.kill()
    pair.outdate()
    pair.state(pair.spare)
    record = pair.place.run().record
    assert pair.used.exists()
    assert pair.spare.exists()
    assert any("no service answers" in note for note in record.notes)
    (pair.exp_dir / "served.json").write_text("{")
    assert "it is not known what is served" in why_skipped(pair.place)


def test_once_it_hangs_nothing_is_deleted_until_it_says(running: Pair) -> None:
    pid = running.second.running.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        running.outdate()
        reason = why_skipped(running.place)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "did not answer: no answer in time" in reason
    assert "if that service is gone for good, remove the lease" in reason
    assert running.spare.exists()


def test_a_service_that_stopped_for_a_weekend_comes_back_to_its_model(pair: Pair) -> None:
    pair.start_again()
    pair.stop()
    assert Lease.read(pair.lease).stopped
    (pair.exp_dir / "served.json").unlink()  # on a disk of another host, not seen from here
    set_age(pair.lease, 3)
    pair.place.run()
    assert pair.used.exists()
    assert not pair.spare.exists()


def test_the_lease_of_a_service_that_runs_is_no_business_of_the_local_clock(
    running: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 3e8
    monkeypatch.setattr(time, "time", lambda: later)
    (lease,) = find_leases(running.place.config)
    assert not lease.may_be_outdated()
    running.outdate()
    assert lease.may_be_outdated()


def test_a_service_that_cannot_leave_a_lease_says_so_and_is_listed(
    template: Path, tmp_path: Path
) -> None:
    with start_pair(template, tmp_path) as pair:
        export, url = pair.used.parent, pair.second.running.url
        for one in (export / LEASE_FOLDER).iterdir():
            one.unlink()
        (export / LEASE_FOLDER).rmdir()
        (export / LEASE_FOLDER).write_text("no folder can be made here")
        pair.switch(pair.used)
        log = (pair.exp_dir / "logs" / "api.err").read_text()
        assert log.count("maintenance.also_serving") == 1
        (export / LEASE_FOLDER).unlink()  # as it is seen by whoever cleans: there is no lease
        text = pair.place.config_path.read_text()
        listed = text.replace("keep_onnx: 1", f"keep_onnx: 1, also_serving: ['{url}']")
        pair.place.config_path.write_text(listed)
        pair.place.run()
        assert pair.used.exists()
        assert not pair.spare.exists()
        os.kill(pair.second.running.pid, signal.SIGSTOP)
        try:
            assert "did not answer" in why_skipped(pair.place)
        finally:
            os.kill(pair.second.running.pid, signal.SIGCONT)


# --- leases as they may lie there ----------------------------------------------------------------


def leave(place: Place, *names: str, folder: str = "export", **facts: object) -> Path:
    """A lease of a service on another host, where nobody answers."""
    content = {
        "host": "gpu2",
        "address": "127.0.0.1",
        "port": 9,
        "pid": 1,
        "exp_dir": place.exp.parent / "elsewhere",
        "env_file": place.exp.parent / "elsewhere" / ".env",
        "root": place.exp.parent,
        "models": dict.fromkeys(names, "served now"),
        **facts,
    }
    lease = Lease.model_validate(content)
    path = place.exp / folder / LEASE_FOLDER / lease.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    return lease.write(path)


def test_a_lease_counts_for_the_folder_it_lies_in_wherever_that_is_mounted(place: Place) -> None:
    fill(place, 8)
    leave(place, name_of(1))
    place.run()
    assert left(place) == [1, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"schema": "lease/2"}',
        '{"schema": "lease/1", "models": {}}',
    ],
)
def test_a_lease_that_cannot_be_read_keeps_every_model(place: Place, text: str) -> None:
    fill(place)
    leave(place, name_of(1)).write_text(text)
    assert "remove it if no service uses it" in why_skipped(place)
    assert len(left(place)) == 8


def test_a_lease_that_is_a_pipe_keeps_every_model_and_is_not_waited_for(place: Place) -> None:
    fill(place)
    path = leave(place, name_of(1))
    path.unlink()
    os.mkfifo(path)
    assert "remove it if no service uses it" in why_skipped(place)
    assert len(left(place)) == 8


@pytest.mark.parametrize("target", [None, "nowhere", LEASE_FOLDER])
def test_where_leases_should_lie_and_no_folder_is_every_model_stays(
    place: Place, target: str | None
) -> None:
    fill(place)
    folder = place.config.export_dir / LEASE_FOLDER
    if target is None:
        folder.write_text("")
    else:
        folder.symlink_to(target)
    assert LEASE_FOLDER in why_skipped(place)
    assert len(left(place)) == 8


def test_a_lease_that_leads_out_of_its_folder_is_none(place: Place) -> None:
    fill(place)
    path = leave(place, name_of(1))
    path.write_text(path.read_text().replace(name_of(1), "../../x.onnx"))
    assert "no name of a file in its folder" in why_skipped(place)


def test_a_host_that_is_away_keeps_every_model_until_a_person_decides(place: Place) -> None:
    fill(place)
    set_age(leave(place, name_of(1)), 40)
    reason = why_skipped(place)
    assert "it listens on gpu2 alone and cannot be asked from here" in reason
    assert len(left(place)) == 8


def test_a_lease_from_the_future_is_not_taken_for_one_that_is_renewed(place: Place) -> None:
    fill(place)
    set_age(leave(place, name_of(1)), -400)
    assert "not seen to be renewed" in why_skipped(place)


def test_a_lease_of_a_restored_release_keeps_it(place: Place) -> None:
    models = [restore(place, number, days=60) for number in (1, 2)]
    leave(place, models[0].name, folder=str(models[0].parent.relative_to(place.exp)), stopped=True)
    set_age(models[0].parents[1], 60)
    place.run()
    assert [path.exists() for path in models] == [True, False]


def test_a_pin_of_a_service_that_stopped_keeps_its_model(place: Place) -> None:
    fill(place, 8)
    (place.exp.parent / "elsewhere").mkdir()
    (place.exp.parent / "elsewhere" / ".env").write_text(f"MODEL_PATH=exp/export/{name_of(2)}\n")
    leave(place, name_of(1), stopped=True)
    place.run()
    assert left(place) == [1, 2, 6, 7, 8]


def test_the_key_is_never_sent_to_an_address_that_only_a_lease_names(place: Place) -> None:
    fill(place)
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"model_path": "/x/y.onnx"}).encode())

        def log_message(self, *arguments: object) -> None:
            return

    place.config_path.with_name(".env").write_text(f"API_KEY={make_key()}\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        here = {"host": os.uname().nodename, "port": server.server_port}
        set_age(leave(place, name_of(1), **here), 1)
        assert "list it under maintenance.also_serving" in why_skipped(place)
    finally:
        server.shutdown()
        server.server_close()
    assert seen
    assert not [headers for headers in seen if "X-API-Key" in headers]


def test_a_service_that_is_listed_is_asked_with_the_key_and_not_by_its_lease(place: Place) -> None:
    fill(place)
    body = json.dumps({"model_path": f"/its/own/mount/{name_of(2)}"})
    with answering(200, body) as url:
        port = int(url.rpartition(":")[2])
        text = place.config_path.read_text()
        place.config_path.write_text(f"{text}  also_serving: ['127.0.0.1:{port}']\n")
        set_age(leave(place, name_of(1), host=os.uname().nodename, port=port), 1)
        place.run()
    assert left(place) == [1, 2, 6, 7, 8]


# --- a service that says so at the very moment ---------------------------------------------------


def test_a_model_that_is_announced_while_it_is_hidden_gets_its_name_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, 7)
    planned = place.plan()
    monkeypatch.setattr(claims, "hide_name", announcing(place, name_of(1)))
    outcome = planned.plan.execute()
    assert "in use by now and was put back" in outcome.skipped[0].reason
    assert left(place) == [1, 3, 4, 5, 6, 7]


def test_a_restored_release_that_is_announced_while_it_is_hidden_gets_its_name_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = restore(place, 1, days=60)
    planned = place.plan()
    folder = str(model.parent.relative_to(place.exp))
    hide = announcing(place, model.name, folder=folder, stopped=True)
    monkeypatch.setattr(claims, "hide_name", hide)
    outcome = planned.plan.execute()
    assert "in use by now and was put back" in outcome.skipped[0].reason
    assert model.exists()


def announcing(place: Place, name: str, **facts: object):
    """`hide_name`, by which time a service has said that it is about to use the model: after it
    was asked, and before the model is gone."""

    def hide(path: Path, kind: str) -> Path:
        leave(place, name, **facts)
        return hide_name(path, kind)  # type: ignore[arg-type]

    return hide


@pytest.mark.parametrize("what", ["model", "release"])
def test_what_a_killed_run_had_hidden_is_put_back_where_it_is_in_use_by_now(
    place: Place, what: str
) -> None:
    fill(place, 5)
    if what == "model":
        path = place.write_model("model-20261001-000000-abc1234.onnx", "w.data", days=40)
        leave(place, path.name, stopped=True)
        path.rename(hide_name(path, "deleted"))
    else:
        path = restore(place, 1, days=60)
        leave(place, path.name, folder=str(path.parent.relative_to(place.exp)), stopped=True)
        path.parents[1].rename(hide_name(path.parents[1], "deleted"))
    place.run()
    assert path.exists()


def test_every_door_stops_where_a_lease_cannot_be_read(place: Place) -> None:
    leave(place, "x.onnx").write_text("{")
    with pytest.raises(InputError):
        ask_services(place.config)
    with pytest.raises(StorageError, match="it is not known what is served"):
        in_use.find_in_use(place.plan().this)


def test_a_service_that_ended_while_another_took_its_place_leaves_that_one_s_lease_alone(
    pair: Pair,
) -> None:
    pair.start_again()
    lease = Lease.read(pair.lease)
    lease.model_copy(update={"pid": lease.pid + 1}).write(pair.lease)
    pair.stop()
    assert not Lease.read(pair.lease).stopped


def test_two_services_on_one_host_have_leases_of_their_own(
    running: Pair, template: Path, tmp_path: Path
) -> None:
    variables = {"API_KEY": make_key(), "MODEL_PATH": str(running.spare)}
    with StagedService(running.place.config_path, variables=variables):
        await_that(lambda: len(find_leases(running.place.config)) == 2, "the second lease")
        running.place.run()
    assert running.used.exists()
    assert running.spare.exists()


def test_an_experiment_without_leases_writes_nothing_to_learn_that(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    fill(place)
    before = {path: path.lstat().st_mtime_ns for path in place.exp.rglob("*")}
    place.plan()
    assert {path: path.lstat().st_mtime_ns for path in place.exp.rglob("*")} == before
