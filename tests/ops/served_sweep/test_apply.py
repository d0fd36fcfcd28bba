"""Applying a sweep of the service: shown first, then written; the service runs what was written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ConfigError, GateFailedError, InconclusiveError, InputError
from opslib.core.plans import carry_out
from opslib.ops.served_sweep.apply import find_any_overrides, plan_any, read_sweep
from opslib.ops.served_sweep.record import ServedOptions
from opslib.serving.loaded import load_candidate, read_candidate
from opslib.serving.staging import RunningService, start_service
from tests.models import write_config
from tests.ops.served_sweep.makers import make_served
from tests.ops.sweep.makers import make_sweep
from tests.running import run_python
from tests.serving.conftest import Place, make_place, open_live

KEPT = "service:\n  workers: 0   # kept\nonnx:\n  allow_spinning: true   # kept too\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(write_config(tmp_path, KEPT), {})


def test_a_dry_run_shows_all_four_keys_and_changes_nothing(config: Config) -> None:
    before = config.source.read_bytes()
    shown: list[str] = []
    carry_out(plan_any(make_served(), config), dry_run=True, show=shown.append)
    for change in (
        "service.workers: 0 -> 1",
        "service.intra_op_num_threads: not set -> 0",
        "service.max_batch: not set -> 1",
        "onnx.allow_spinning: true -> false",
        "1.25 x the default's rate, as served",
    ):
        assert change in shown[1]
    assert config.source.read_bytes() == before


def test_what_is_written_is_read_back_and_comments_stay(config: Config) -> None:
    plan_any(make_served(), config).execute()
    loaded = load_config(config.source, {})
    service = loaded.service
    assert (service.workers, service.intra_op_num_threads, service.max_batch) == (1, 0, 1)
    assert loaded.onnx.allow_spinning is False
    assert loaded.onnx.intra_op_num_threads == 0
    text = config.source.read_text()
    assert "workers: 1   # kept\n" in text
    assert "allow_spinning: false  # kept too\n" in text
    assert find_any_overrides(make_served(), loaded) == []


def test_the_default_as_good_undoes_an_older_recommendation(config: Config) -> None:
    plan_any(make_served(), config).execute()
    tuned = load_config(config.source, {})
    plan_any(make_served(ServedOptions(), gain=1.0), tuned).execute()
    assert load_config(config.source, {}).service.max_batch == 8
    again = plan_any(make_served(ServedOptions(), gain=1.0), load_config(config.source, {}))
    assert again.actions == ()


def test_what_was_not_decided_or_failed_is_not_applied(config: Config) -> None:
    with pytest.raises(InconclusiveError, match="did not decide"):
        plan_any(make_served(verdict="inconclusive"), config)
    with pytest.raises(GateFailedError, match="recommends nothing"):
        plan_any(make_served(verdict="fail", recommended=None), config)


def test_another_hosts_record_needs_force(config: Config) -> None:
    record = make_served()
    elsewhere = record.lineage.model_copy(update={"host_fingerprint": "0" * 12})
    foreign = record.model_copy(update={"lineage": elsewhere})
    with pytest.raises(InconclusiveError, match="another host"):
        plan_any(foreign, config)
    assert plan_any(foreign, config, force=True).actions


def test_an_environment_variable_that_wins_over_the_file_is_named(config: Config) -> None:
    plan_any(make_served(), config).execute()
    loaded = load_config(config.source, {"PILLSNAP_SERVICE__WORKERS": "3"})
    assert find_any_overrides(make_served(), loaded) == ["service.workers"]


def test_an_impossible_recommendation_is_refused_before_the_plan(config: Config) -> None:
    before = config.source.read_bytes()
    with pytest.raises(ConfigError, match=r"service\.max_batch: got 0"):
        plan_any(make_served(ServedOptions(max_batch=0)), config)
    assert config.source.read_bytes() == before


def test_either_record_is_taken_and_any_other_is_refused_by_name(tmp_path: Path) -> None:
    of_sessions, of_service = make_sweep(), make_served()
    assert read_sweep(of_sessions.write(tmp_path / "a.json")) == of_sessions
    assert read_sweep(of_service.write(tmp_path / "b.json")) == of_service
    other = tmp_path / "bench.json"
    other.write_text('{"schema": "bench/1"}')
    with pytest.raises(InputError, match=r"bench\.json: schema is 'bench/1'; expected the record"):
        read_sweep(other)
    other.write_text("no JSON")
    with pytest.raises(InputError, match=r"bench\.json: not JSON: .*; expected the record of a"):
        read_sweep(other)


def test_the_command_shows_writes_and_names_what_the_environment_overrides(tmp_path: Path) -> None:
    config = write_config(tmp_path, KEPT)
    make_served().write(tmp_path / "exp/reports/served_sweep.json")

    def call(*options: str, **variables: str) -> str:
        command = [sys.executable, "-m", "opslib.cli", "apply", "served_sweep.json", *options]
        environment = {**os.environ, "COLUMNS": "200", **variables}
        return run_python(command, cwd=tmp_path, env=environment, check=True).stdout

    assert "set service.workers: 0 -> 1" in call("--dry-run")
    assert "workers: 0" in config.read_text()
    said = call(PILLSNAP_SERVICE__MAX_BATCH="4")
    assert "service.max_batch: the file is overridden by an environment variable" in said
    assert "workers: 1   # kept" in config.read_text()


def count_threads(service: RunningService) -> int:
    return len(list(Path(f"/proc/{service.pid}/task").iterdir()))


def serve_once(place: Place) -> tuple[dict[str, object], int]:
    """What a service of the place says of itself, and how many threads it has once it serves."""
    with start_service(place.config_path) as service:
        live = open_live(service, place)
        assert live.predict(place.images[0]).status_code == 200
        said, threads = live.version, count_threads(service)
        live.client.close()
    return said, threads


def test_the_options_in_force_in_a_running_service_are_those_recommended(tmp_path: Path) -> None:
    place = make_place(tmp_path, "service: {workers: 1}\n")
    before, few = serve_once(place)
    assert (before["workers"], before["intra_op_num_threads"]) == (1, 1)
    options = ServedOptions(workers=3, intra_op_num_threads=4, max_batch=5, allow_spinning=False)
    plan_any(make_served(options), place.config).execute()
    after, many = serve_once(place)
    assert {name: after[name] for name in ServedOptions.model_fields} == options.model_dump()
    more_workers, more_in_the_pool = 2, 3
    assert many - few == more_workers + more_in_the_pool


def test_the_session_that_serves_has_the_threads_and_the_spinning_that_were_recommended(
    tmp_path: Path,
) -> None:
    place = make_place(tmp_path)
    options = ServedOptions(intra_op_num_threads=4, allow_spinning=False)
    plan_any(make_served(options), place.config).execute()
    model = load_candidate(place.config, read_candidate(place.config, place.first))
    in_force = model.engine._session.get_session_options()  # type: ignore[attr-defined]
    model.close()
    assert in_force.intra_op_num_threads == 4
    assert in_force.get_session_config_entry("session.intra_op.allow_spinning") == "0"
