"""H-4: the health watch against real servers that fail, hang, answer 500, answer slowly, flap."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import BusyError, ConfigError, ParameterError
from opslib.core.locks import hold_lock
from opslib.serving.staging import start_service
from opslib.upkeep import health
from opslib.upkeep.health import (
    check_health,
    health_log_path,
    health_state_path,
    watch_health,
)
from opslib.upkeep.health_record import HealthRecord, WatchMemory
from tests.models import write_config
from tests.running import run_python
from tests.serving.conftest import make_place
from tests.upkeep.servers import World, closed_port, open_world
from tests.waiting import await_end

SECRET_PATH = "/webhook-T0PSECRET"


class Watch:
    """A configured watch: its world, its runs and what it told people."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.told: list[str] = []
        self.settings = {
            "internal_url": f"{world.url}/internal",
            "external_url": f"{world.url}/external",
            "timeout_s": "1.5",
            "settle_s": "0",
            "webhook": "env:HEALTH_WEBHOOK",
        }
        (folder / ".env").write_text(f"HEALTH_WEBHOOK={world.url}{SECRET_PATH}\n")
        self.restart_with("true")

    def restart_with(self, script: str) -> None:
        """Restart by a real shell script; every restart leaves a line."""
        path = self.folder / "restart.sh"
        path.write_text(f"#!/bin/sh\necho restarted >> '{self.folder}/restarts'\n{script}\n")
        path.chmod(0o755)
        self.settings["restart_command"] = f"'{path}'"

    @property
    def config(self) -> Config:
        lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in self.settings.items())
        return load_config(write_config(self.folder, f"health:\n{lines}"))

    @property
    def restarts(self) -> int:
        path = self.folder / "restarts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def log(self) -> str:
        return health_log_path(self.config).read_text()

    def run(self, **modes: str) -> HealthRecord:
        self.world.set(**modes)
        return watch_health(self.config, self.told.append)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    for name in ("modes", "exp"):
        (tmp_path / name).mkdir()
    with open_world(tmp_path / "modes") as world:
        yield Watch(world, tmp_path)


@pytest.mark.parametrize(
    ("mode", "detail"),
    [
        ("refuse", "no HTTP answer"),
        ("hang", "no answer within 1.5 s"),
        ("500", "HTTP 500"),
        ("slow", "no answer within 1.5 s"),
        ("drip", "no answer within 1.5 s"),
        ("login", "HTTP 200, no JSON"),
        ("redirect", "HTTP 302"),
        ("starting", "status 'starting'"),
    ],
)
def test_a_tunnel_that_fails_is_restarted_at_the_second_failure_then_alerted_once(
    watch: Watch, mode: str, detail: str
) -> None:
    runs = [watch.run(external=mode) for _ in range(3)]
    assert [run.actions for run in runs] == [(), ("restart", "alert"), ()]
    assert [run.exit_code for run in runs] == [0, 3, 3]
    assert watch.restarts == 1
    assert runs[1].layer == "tunnel"
    (alert,) = watch.told
    assert "ALERT: the tunnel is down, the app answers (still failing after a restart)" in alert
    assert detail in alert
    after = [watch.run(external="ok") for _ in range(3)]
    assert [run.actions for run in after] == [(), ("recovery",), ()]
    assert "RECOVERED: all checks answer again; the tunnel was down for" in watch.told[-1]
    assert [one["event"] for one in watch.world.posted] == ["alert", "recovery"]
    assert watch.world.posted[0]["layer"] == "tunnel"
    assert watch.world.posted[0]["text"] == watch.world.posted[0]["content"] == alert


def test_a_degraded_app_is_told_once_and_nothing_is_restarted_for_it(watch: Watch) -> None:
    runs = [watch.run(internal="degraded", external="degraded") for _ in range(4)]
    assert [run.actions for run in runs] == [(), ("alert-degraded",), (), ()]
    assert [run.exit_code for run in runs] == [0, 3, 3, 3]
    assert {run.layer for run in runs} == {None}
    (alert,) = watch.told
    assert "PillSnap ALERT: another model is served than should be" in alert
    assert "HTTP 200, degraded: wanted model-b, serves model-a (it is gone)" in alert
    assert "internal DEGRADED (HTTP 200, degraded: wanted model-b, serves" in watch.log
    after = [watch.run(internal="ok", external="ok") for _ in range(3)]
    assert [run.actions for run in after] == [(), ("recovery-degraded",), ()]
    assert [run.exit_code for run in after] == [0, 0, 0]
    assert "RECOVERED: the model that should be is served again" in watch.told[-1]
    assert watch.restarts == 0
    assert [one["event"] for one in watch.world.posted] == ["alert", "recovery"]
    assert {one["layer"] for one in watch.world.posted} == {"model"}


def test_one_check_of_a_degraded_app_ends_with_3(watch: Watch) -> None:
    watch.world.set(internal="degraded")
    record = check_health(watch.config)
    assert (record.exit_code, record.layer) == (3, None)
    assert record.internal.describe().startswith("DEGRADED (HTTP 200, degraded: wanted model-b")


@pytest.mark.parametrize(
    ("modes", "layer", "words"),
    [
        ({"internal": "500"}, "app", "the app is down"),
        ({"internal": "hang", "external": "500"}, "both", "app and external address are both"),
    ],
)
def test_the_alert_names_the_failed_layer(
    watch: Watch, modes: dict[str, str], layer: str, words: str
) -> None:
    runs = [watch.run(**modes) for _ in range(2)]
    assert runs[1].layer == layer
    assert words in watch.told[0]


def test_a_restart_that_helps_tells_nobody_but_the_log(watch: Watch) -> None:
    watch.restart_with(f"echo ok > '{watch.world.folder}/external.mode'")
    runs = [watch.run(external="500"), watch.run(), watch.run(), watch.run()]
    assert [run.actions for run in runs] == [(), ("restart",), (), ()]
    assert [run.exit_code for run in runs] == [0, 0, 0, 0]
    assert watch.told == watch.world.posted == []
    assert "restart: 2 consecutive failures (internal HTTP 200; external HTTP 500)" in watch.log


def test_what_answers_late_after_a_restart_is_waited_for(watch: Watch) -> None:
    watch.restart_with(f"(sleep 1; echo ok > '{watch.world.folder}/external.mode') &")
    watch.settings["settle_s"] = "20"
    watch.run(external="500")
    assert watch.run().exit_code == 0
    assert watch.told == []


def test_flapping_makes_one_alert_and_no_restart_storm(watch: Watch) -> None:
    flaps = ["500", "500", "ok", "500", "500", "ok"] * 4
    runs = [watch.run(external=mode) for mode in flaps]
    assert watch.restarts == 3
    assert len(watch.told) == len(watch.world.posted) == 1
    assert runs[0].actions == ()
    assert watch.run(external="ok").actions == ("recovery",)


def test_a_restart_that_hangs_is_ended_with_all_it_started(watch: Watch) -> None:
    watch.settings["restart_timeout_s"] = "0.5"
    watch.restart_with(f"sleep 300 & echo $! > '{watch.folder}/child'; wait")
    watch.run(external="500")
    started = time.monotonic()
    run = watch.run()
    assert run.restart == "hung and was ended after 0.5 s"
    assert time.monotonic() - started < 60
    assert run.actions == ("restart", "alert")
    child = int((watch.folder / "child").read_text())
    await_end(child)


def test_a_daemon_left_behind_by_the_restart_holds_nobody_up(watch: Watch) -> None:
    watch.restart_with(f"setsid sleep 30 & echo $! > '{watch.folder}/child'")
    watch.settings["restart_timeout_s"] = "20"
    watch.run(external="500")
    assert watch.run().restart == "exit 0"
    os.kill(int((watch.folder / "child").read_text()), 9)


@pytest.mark.parametrize(
    ("script", "detail"),
    [("echo no such unit >&2; exit 5", "exit 5: no such unit"), (None, "cannot be run: No such")],
)
def test_a_restart_that_fails_is_told(watch: Watch, script: str | None, detail: str) -> None:
    if script is None:
        watch.settings["restart_command"] = "/no/such/program now"
    else:
        watch.restart_with(script)
    watch.run(external="500")
    assert detail in str(watch.run().restart)
    assert detail in watch.told[0]


def test_without_a_command_the_alert_comes_at_once(watch: Watch) -> None:
    del watch.settings["restart_command"]
    assert [watch.run(external="500").actions for _ in range(3)] == [(), ("alert",), ()]
    assert "nothing to restart is configured" in watch.told[0]


def test_an_address_on_which_nobody_listens_has_failed(watch: Watch) -> None:
    watch.settings["internal_url"] = f"http://127.0.0.1:{closed_port()}/health"
    record = check_health(watch.config)
    assert record.exit_code == 3
    assert record.layer == "app"
    assert record.internal.detail == "connection refused"


def test_a_notice_that_could_not_be_delivered_is_delivered_by_a_later_run(watch: Watch) -> None:
    watch.run(external="500", webhook="503")
    watch.run()
    watch.run()
    assert watch.world.posted == []
    assert "webhook: HTTP 503; tried again by the next run" in watch.told
    watch.run(webhook="ok")
    assert [one["event"] for one in watch.world.posted] == ["alert"]
    watch.run(external="ok", webhook="503")
    watch.run()
    watch.run(webhook="ok")
    assert [one["event"] for one in watch.world.posted] == ["alert", "recovery"]
    assert WatchMemory.read(health_state_path(watch.config)).undelivered == ()


def test_an_experiment_that_is_not_there_is_named_and_not_made(watch: Watch) -> None:
    config = watch.config
    config.exp_dir.rmdir()
    with pytest.raises(ConfigError, match="is its disk mounted"):
        watch_health(config, watch.told.append)
    assert not config.exp_dir.exists()
    watch.settings["state"] = str(watch.folder / "state.json")
    watch.settings["log"] = str(watch.folder / "health.log")
    assert watch_health(watch.config, watch.told.append).exit_code == 0


def test_what_waits_for_a_webhook_that_was_taken_away_is_dropped(watch: Watch) -> None:
    watch.run(external="500", webhook="503")
    watch.run()
    del watch.settings["webhook"]
    watch.told.clear()
    watch.run()
    assert watch.told == []
    assert WatchMemory.read(health_state_path(watch.config)).undelivered == ()


def test_several_notices_are_delivered_in_their_order_by_one_run(watch: Watch) -> None:
    for mode in ("500", "500", "ok", "ok"):
        watch.run(external=mode, webhook="503")
    assert watch.world.posted == []
    watch.run(webhook="ok")
    assert [one["event"] for one in watch.world.posted] == ["alert", "recovery"]


def test_the_address_of_the_webhook_is_written_nowhere(watch: Watch) -> None:
    watch.run(external="500", webhook="503")
    watch.run()
    (watch.folder / ".env").write_text(f"HEALTH_WEBHOOK=http://127.0.0.1:1{SECRET_PATH}\n")
    watch.run()
    (watch.folder / ".env").write_text(f"HEALTH_WEBHOOK={SECRET_PATH}\n")
    watch.run()
    everything = watch.log + "".join(watch.told) + health_state_path(watch.config).read_text()
    assert "webhook: connection refused" in everything
    assert "expected the variable to hold http://" in everything
    assert "T0PSECRET" not in everything


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": "health-watch/9"}', b"\xff\xfe"])
def test_a_damaged_state_is_noted_and_counting_starts_anew(watch: Watch, damage: bytes) -> None:
    watch.run(external="500")
    path = health_state_path(watch.config)
    path.write_bytes(damage)
    run = watch.run()
    assert run.actions == ()
    assert (run.external_failures, run.exit_code) == (1, 0)
    assert "counting starts anew" in watch.told[0]
    assert path.with_name(path.name + ".damaged").read_bytes() == damage
    assert watch.run().actions == ("restart", "alert")


def test_a_restart_is_counted_before_it_is_made(watch: Watch) -> None:
    """A run that is killed while it restarts cannot restart without end."""
    state = health_state_path(watch.config)
    watch.restart_with(f"cp '{state}' '{watch.folder}/seen.json'")
    watch.run(external="500")
    watch.run()
    seen = WatchMemory.read(watch.folder / "seen.json").decisions
    assert len(seen.restarts_at_s) == 1
    assert seen.incident is not None


def test_a_second_run_at_the_same_time_ends_as_busy(watch: Watch) -> None:
    path = health_state_path(watch.config)
    with hold_lock(path.with_suffix(".lock"), "health watch"), pytest.raises(BusyError):
        watch.run()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The watch's clock, in seconds, to be set by the test; it stands at the full hour."""
    now = [1_800_000_000]
    monkeypatch.setattr(health, "_now_s", lambda: now[0])
    return now


def test_a_state_that_has_no_place_stops_neither_restart_nor_alert(
    watch: Watch, clock: list[int]
) -> None:
    (watch.folder / "file").touch()
    watch.settings["state"] = str(watch.folder / "file" / "state.json")
    seen = []
    for _ in range(70):
        seen.append(watch.run(external="500").actions)
        clock[0] += 60
    assert seen[:3] == [(), ("restart", "alert"), ()]
    events = [one["event"] for one in watch.world.posted]
    assert events == ["trouble", "alert", "trouble"]
    assert "it is kept in" in str(watch.world.posted[0]["text"])
    assert watch.restarts <= 6


def test_a_state_that_another_program_holds_open_is_no_hindrance(watch: Watch) -> None:
    watch.run()
    path = health_state_path(watch.config)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert watch.run(external="500").actions == ()
        assert watch.run().actions == ("restart", "alert")


def test_a_watch_that_can_remember_nothing_acts_once_an_hour(
    watch: Watch, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (watch.folder / "file").touch()
    monkeypatch.setenv("PILLOPS_LOCK_DIR", str(watch.folder / "file"))
    watch.settings["state"] = str(watch.folder / "file" / "state.json")
    for _ in range(120):
        assert watch.run(external="500").exit_code == 3
        clock[0] += 60
    assert watch.restarts == 2
    events = [one["event"] for one in watch.world.posted]
    assert events == ["alert", "trouble"] * 2
    assert "nothing can be remembered" in str(watch.world.posted[1]["text"])


def test_what_was_kept_elsewhere_counts_until_the_state_has_its_place_again(watch: Watch) -> None:
    blocked = watch.folder / "file"
    blocked.touch()
    watch.settings["state"] = str(blocked / "state.json")
    assert watch.run(external="500").actions == ()
    blocked.unlink()
    blocked.mkdir()
    assert watch.run().actions == ("restart", "alert")
    assert not WatchMemory.read(blocked / "state.json").alone
    (blocked / "state.json").unlink()
    assert watch.run().external_failures == 1, "who removes the state counts anew"


def test_a_log_that_has_no_place_is_told_to_the_webhook_once_an_hour(
    watch: Watch, clock: list[int]
) -> None:
    watch.settings["log"] = "/dev/null/health.out"
    for _ in range(61):
        watch.run()
        clock[0] += 60
    texts = [str(one["text"]) for one in watch.world.posted]
    assert len(texts) == 2
    assert all("TROUBLE: cannot append to /dev/null/health.out" in text for text in texts)


def test_a_log_that_cannot_be_written_is_told_and_the_watch_goes_on(watch: Watch) -> None:
    watch.settings["log"] = "/dev/null/health.out"
    assert [watch.run(external="500").actions for _ in range(2)] == [(), ("restart", "alert")]
    assert any("cannot append to /dev/null/health.out" in line for line in watch.told)


def test_each_run_is_one_line_of_the_log(watch: Watch) -> None:
    watch.run()
    watch.run(external="500")
    first, second = watch.log.splitlines()
    assert first.endswith("ms)")
    assert "internal ok (HTTP 200" in first
    assert "external FAILED (HTTP 500" in second
    assert second.endswith("| layer tunnel | failures 0/1")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("internal_url", "ftp://x/", "expected http://host/path"),
        ("external_url", "https://", "expected http://host/path"),
        ("external_url", "https://a:b@host/", "without a name or password"),
        ("external_url", "http://host:99999/", "expected http://host/path"),
        ("failures", "0", "greater than 0"),
        ("timeout_s", "0", "greater than 0"),
        ("restart_on", "sometimes", "'any' or 'external'"),
        ("restart_command", "systemctl 'restart", "expected a command line"),
        ("restart_command", "", "null for none"),
        ("max_restarts_per_hour", "-1", "greater than or equal to 0"),
        ("webhook", f"https://hooks{SECRET_PATH}", "expected a reference, env:NAME"),
    ],
)
def test_nonsense_in_the_configuration_is_refused_by_its_key(
    watch: Watch, key: str, value: str, wanted: str
) -> None:
    watch.settings[key] = value
    with pytest.raises(ConfigError, match=f"health.{key}.*{wanted}") as refusal:
        watch.run()
    assert "T0PSECRET" not in str(refusal.value)


def test_a_webhook_whose_variable_is_missing_is_refused_by_the_check(watch: Watch) -> None:
    (watch.folder / ".env").write_text("")
    with pytest.raises(ParameterError, match="HEALTH_WEBHOOK is set neither"):
        check_health(watch.config)


def call(watch: Watch, *words: str) -> subprocess.CompletedProcess[str]:
    return run_python(
        [sys.executable, "-m", "opslib.cli", *words, "--config", str(watch.config.source)],
        timeout=60,
    )


def test_failures_are_counted_across_processes_and_the_exit_code_tells(watch: Watch) -> None:
    watch.world.set(external="500")
    answers = [call(watch, "health", "watch") for _ in range(3)]
    assert [answer.returncode for answer in answers] == [0, 3, 3]
    assert "| restart, alert" in answers[1].stdout
    assert "ALERT: the tunnel is down" in answers[1].stderr
    assert answers[0].stderr == answers[2].stderr == ""


def test_the_check_prints_each_address_and_changes_nothing(watch: Watch, tmp_path: Path) -> None:
    out = tmp_path / "health.json"
    good = call(watch, "health", "check", "--json", str(out))
    assert good.returncode == 0, good.stderr
    assert "external" in good.stdout
    assert HealthRecord.read(out).layer is None
    watch.world.set(internal="500")
    bad = call(watch, "health", "check")
    assert bad.returncode == 3
    assert "failed layer: app" in bad.stdout
    assert not health_state_path(watch.config).exists()


def test_the_reference_service_is_healthy_until_it_is_stopped(watch: Watch) -> None:
    place = make_place(watch.folder / "place")
    with start_service(place.config_path) as service:
        watch.settings["internal_url"] = f"{service.url}/health"
        assert watch.run().layer is None
    assert watch.run().layer == "app"


def test_a_watch_loads_nothing_heavy() -> None:
    code = "import opslib.cli, opslib.upkeep.health, sys;print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "torch", "onnxruntime", "httpx", "papermill", "matplotlib"}
    assert not set(answer.stdout.split()) & heavy
