"""The report over all hosts: who is slower than its like, behind, or silent; and what nobody knows.

The desks are made of one real benchmark (see `makers.py`); names, dates and factors are invented.
"""

from __future__ import annotations

import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opslib.core.errors import ParameterError
from opslib.core.formatting import utc_now
from opslib.ops.checklist.items import Item
from opslib.ops.checklist.record import ChecklistRecord
from opslib.ops.fleet.record import FleetHost, FleetRecord
from opslib.ops.fleet.run import run_fleet
from opslib.runs.run_record import RUN_FILE, RunRecord, utc_text
from tests.ops.fleet.makers import (
    MEASURED,
    NEW,
    NEWEST,
    OLD,
    add_bench,
    add_benches,
    add_run,
    note,
    on_host,
)
from tests.running import run_python


def host_of(record: FleetRecord, name: str) -> FleetHost:
    return next(host for host in record.hosts if host.name == name)


def speeds(record: FleetRecord) -> dict[str, str | None]:
    return {host.name: host.speed for host in record.hosts}


def test_a_host_slower_than_its_like_fails_and_the_host_is_named(tmp_path: Path) -> None:
    for name, whole in (("one", 1.0), ("two", 1.0), ("three", 1.25)):
        add_benches(tmp_path, name, whole=whole)
    record = run_fleet(tmp_path)
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert record.finding.startswith("three by 2")
    assert speeds(record) == {"one": "alike", "two": "alike", "three": "slower"}
    assert record.hosts[0].why == "the host: the reference network is slower there too"
    (worst,) = {
        row.host for group in record.groups for row in group.rows if row.outcome == "slower"
    }
    assert worst == "three"


def test_a_model_that_is_slower_beside_its_reference_is_told_from_a_slow_host(
    tmp_path: Path,
) -> None:
    for name, factor in (("one", 1.0), ("two", 1.0), ("three", 1.25)):
        add_benches(tmp_path, name, whole=factor, ratio=factor)
    slow = host_of(run_fleet(tmp_path), "three")
    assert slow.speed == "slower"
    assert slow.why.startswith("the model: slower beside the reference too")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"whole": 1.12, "ratio": 1.04, "ratio_noise": 0.12},
            "where from is open: neither the reference network nor the ratio to it",
        ),
        (
            {"whole": 1.1, "ratio": 1.1 / 1.16, "noise": 0.004},
            "the host: the reference network is slower there too",
        ),
        (
            {"whole": 1.3, "ratio": 1.12, "noise": 0.01},
            "the host and the model: the reference network is slower, and the ratio to it too",
        ),
        (
            {"whole": 1.0, "ratio": 1.2},
            "only its ratio to the reference network is higher, its latency is not",
        ),
        (
            {"whole": 0.8, "ratio": 1.0},
            "the host: the reference network is faster there too",
        ),
    ],
)
def test_where_a_difference_comes_from_is_said_with_evidence_alone(
    tmp_path: Path, given: dict[str, float], why: str
) -> None:
    alike = {**given, "whole": 1.0, "ratio": 1.0}
    for name in ("one", "two"):
        add_benches(tmp_path, name, **alike)
    add_benches(tmp_path, "three", **given)
    assert host_of(run_fleet(tmp_path), "three").why.startswith(why)


def test_hosts_that_differ_by_no_more_than_their_runs_do_pass(tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four"):
        add_benches(tmp_path, name, whole=1.0, noise=0.04)
    record = run_fleet(tmp_path)
    assert (record.verdict, record.exit_code) == ("pass", 0)
    assert record.finding == "All 4 hosts are as fast as their like."


def test_a_difference_within_the_noise_of_the_hosts_runs_is_none(tmp_path: Path) -> None:
    for name, whole in (("one", 1.0), ("two", 1.0), ("three", 1.15)):
        add_benches(tmp_path, name, whole=whole, noise=0.25, runs=4)
    assert set(speeds(run_fleet(tmp_path)).values()) == {"alike"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lineage": on_host("odd", cpu="Another")}, "no other host of this hardware"),
        ({"img_size": 999}, "image size 999 px here"),
        ({"reference_sha256": "ff" * 32}, "reference network ffffffffffff here"),
    ],
)
def test_what_is_not_alike_is_never_compared_and_what_differs_is_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    for name in ("one", "two"):
        add_benches(tmp_path, name)
    add_benches(tmp_path, "odd", whole=3.0, **changes)
    record = run_fleet(tmp_path)
    odd = host_of(record, "odd")
    assert odd.speed is None
    assert said in odd.why
    assert record.verdict == "inconclusive"
    assert not [row for group in record.groups for row in group.rows if row.host == "odd"]


def test_another_runtime_is_another_group_and_the_engine_that_is_alike_is_compared(
    tmp_path: Path,
) -> None:
    versions = {**MEASURED.lineage.versions, "onnxruntime-gpu": "9.9"}
    for name in ("one", "two"):
        add_benches(tmp_path, name)
    lineage = on_host("odd").model_copy(update={"versions": versions})
    add_benches(tmp_path, "odd", lineage=lineage)
    record = run_fleet(tmp_path)
    hosts = {group.what: {row.host for row in group.rows} for group in record.groups}
    assert hosts["ONNX Runtime on CPU, inference"] == {"one", "two"}
    assert hosts["Torch on CPU, inference"] == {"one", "two", "odd"}


def test_hosts_of_equal_hardware_are_told_apart_by_name_and_nameless_runs_are_said(
    tmp_path: Path,
) -> None:
    add_benches(tmp_path, "one")
    add_benches(tmp_path, "two")
    add_benches(tmp_path, None)
    record = run_fleet(tmp_path)
    assert len(record.hosts) == 3
    assert any("perhaps several hosts of equal hardware" in line for line in record.notes)


def test_the_newest_conditions_of_a_host_count(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_benches(tmp_path, name, last_days_ago=20, whole=1.0, img_size=64)
        add_benches(tmp_path, name, whole=1.4 if name == "two" else 1.0)
    record = run_fleet(tmp_path)
    assert {group.conditions["image size"] for group in record.groups} == {
        f"{MEASURED.img_size} px"
    }
    assert host_of(record, "two").speed == "slower"


def test_a_host_with_an_older_model_than_others_is_behind(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_run(tmp_path, name, days_ago=5, served=note(NEW))
    add_run(tmp_path, "three", days_ago=0.2, served=note(OLD))
    record = run_fleet(tmp_path)
    assert record.verdict == "fail"
    assert "three serves an older model than others do" in record.finding
    (line,) = host_of(record, "three").behind
    assert line.startswith(f"1 newer model served elsewhere, {NEW} on one since ")


def test_a_model_that_was_rolled_back_everywhere_leaves_nobody_behind(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_run(tmp_path, name, days_ago=9, served=note(OLD))
        add_run(tmp_path, name, days_ago=0.2, served=note(OLD))
    add_run(tmp_path, "one", days_ago=5, served=note(NEW))
    record = run_fleet(tmp_path)
    assert [one.name for one in record.history["one"]] == [OLD, NEW, OLD]
    assert not any(host.behind for host in record.hosts)
    assert [one.newer for host in record.hosts for one in host.served] == [0, 0]


def test_what_only_a_silent_host_was_known_to_serve_leaves_nobody_behind(tmp_path: Path) -> None:
    add_run(tmp_path, "away", days_ago=20, served=note(NEW))
    add_run(tmp_path, "one", days_ago=0.2, served=note(OLD))
    assert not host_of(run_fleet(tmp_path), "one").behind
    assert host_of(run_fleet(tmp_path, silent_days=30), "one").behind


def test_a_roll_that_just_began_hides_nobody_who_was_behind_before_it(tmp_path: Path) -> None:
    add_run(tmp_path, "behind", days_ago=0.2, served=note(OLD))
    for name in ("two", "three"):
        add_run(tmp_path, name, days_ago=30, served=note(NEW))
    add_run(tmp_path, "two", days_ago=0.2, served=note(NEW))
    add_run(tmp_path, "three", days_ago=0.1, served=note(NEWEST))
    record = run_fleet(tmp_path)
    (line,) = host_of(record, "behind").behind
    assert line.startswith(f"2 newer models served elsewhere, {NEW} on two since ")
    assert not host_of(record, "two").behind


def test_since_when_a_newer_model_is_served_counts_from_its_last_return(tmp_path: Path) -> None:
    for days_ago, name in ((20, NEW), (10, OLD), (3, NEW)):
        add_run(tmp_path, "one", days_ago=days_ago, served=note(name))
    add_run(tmp_path, "two", days_ago=0.2, served=note(OLD))
    record = run_fleet(tmp_path)
    (line,) = host_of(record, "two").behind
    assert line.endswith(f"on one since {record.history['one'][-1].first_utc[:10]}")
    assert not host_of(run_fleet(tmp_path, behind_days=4), "two").behind


def test_a_model_that_is_just_being_rolled_leaves_nobody_behind(tmp_path: Path) -> None:
    add_run(tmp_path, "one", days_ago=0.2, served=note(NEW))
    add_run(tmp_path, "two", days_ago=0.2, served=note(OLD))
    assert not host_of(run_fleet(tmp_path), "two").behind
    assert host_of(run_fleet(tmp_path, behind_days=0.1), "two").behind


def test_models_without_a_date_in_their_names_are_ordered_by_when_they_were_first_seen(
    tmp_path: Path,
) -> None:
    add_run(tmp_path, "one", days_ago=9, served=note("zeta.onnx"))
    add_run(tmp_path, "one", days_ago=3, served=note("alpha.onnx"))
    add_run(tmp_path, "two", days_ago=0.2, served=note("zeta.onnx"))
    record = run_fleet(tmp_path)
    assert [one.name for one in record.history["one"]] == ["zeta.onnx", "alpha.onnx"]
    assert host_of(record, "two").behind
    assert not host_of(record, "one").behind


def test_kinds_of_models_are_looked_at_one_by_one(tmp_path: Path) -> None:
    add_run(tmp_path, "one", days_ago=3, served=note(NEW, "detection"))
    add_run(tmp_path, "two", days_ago=3, served=note(OLD, "classification"))
    assert not any(host.behind for host in run_fleet(tmp_path).hosts)


def checklist_of(name: str, *, days_ago: float, item: dict[str, Any]) -> ChecklistRecord:
    facts = {"title": "Live model", "period": "daily", "state": "ok", "took_s": 0.1}
    return ChecklistRecord(
        verdict="pass",
        finding="Daily: all is well.",
        exit_code=0,
        lineage=on_host(name),
        experiment="exp",
        period="daily",
        since_utc=utc_text(utc_now() - timedelta(days=days_ago + 1)),
        items=(Item.model_validate({"name": "model", **facts, **item}),),
        wall_s=1.0,
    )


@pytest.mark.parametrize(
    "item",
    [
        {"evidence": (), "models": (note(OLD),)},
        {"evidence": (f"live: {OLD} (sha256 {note(OLD).sha256[:12]}…, generation 3)",)},  # type: ignore[index]
    ],
)
def test_what_a_service_answered_to_the_checklist_is_known_also_from_words(
    tmp_path: Path, item: dict[str, Any]
) -> None:
    folder = add_run(tmp_path, "one", days_ago=2, served=note(OLD))
    checklist_of("one", days_ago=2, item=item).write(folder / "checklist_daily_1.json")
    run = RunRecord.read(folder / RUN_FILE)
    run.model_copy(update={"record": "checklist_daily_1.json"}).write(folder / RUN_FILE)
    (served,) = host_of(run_fleet(tmp_path), "one").served
    assert (served.name, served.source) == (OLD, "answered")
    assert served.sha256 == note(OLD).sha256


def test_a_host_that_sends_nothing_makes_the_report_inconclusive(tmp_path: Path) -> None:
    for name, last in (("one", 0.1), ("two", 0.1), ("away", 12.0)):
        add_benches(tmp_path, name, last_days_ago=last)
    record = run_fleet(tmp_path)
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert "othing was heard of away for 12 days" in record.finding
    assert run_fleet(tmp_path, silent_days=13).verdict == "pass"


def test_of_a_silent_host_nobody_says_that_it_is_behind(tmp_path: Path) -> None:
    add_run(tmp_path, "one", days_ago=3, served=note(NEW))
    add_run(tmp_path, "away", days_ago=20, served=note(OLD))
    away = host_of(run_fleet(tmp_path), "away")
    assert away.is_silent
    assert not away.behind
    assert away.served[0].newer == 1


def test_what_is_over_is_left_out_and_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_benches(tmp_path, name)
    add_run(tmp_path, "retired", days_ago=300)
    add_benches(tmp_path, "two", last_days_ago=40, lineage=on_host("two", cpus_usable=1))
    record = run_fleet(tmp_path)
    assert [host.name for host in record.hosts] == ["one", "two, AMD EPYC, 2 cores"]
    assert "no run in 180 days, so no host of the fleet: retired" in record.notes
    assert any("of other hardware since" in line for line in record.notes)


def test_no_run_one_host_and_too_few_runs_are_said_in_a_line(tmp_path: Path) -> None:
    empty = run_fleet(tmp_path)
    assert (empty.verdict, empty.exit_code, empty.hosts) == ("inconclusive", 4, ())
    add_benches(tmp_path, "one")
    alone = run_fleet(tmp_path)
    assert alone.exit_code == 4
    assert "one is the only host: there is none to compare it with" in alone.finding
    add_bench(tmp_path, "two")
    few = run_fleet(tmp_path)
    assert few.exit_code == 4
    assert host_of(few, "two").why == "too few comparable runs: 1 of 3"
    assert "No host could be held beside its like, for example one: " in few.finding


def test_damaged_records_are_counted_named_and_left_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folders = add_benches(tmp_path, name, runs=6)
        next(folders[0].glob("bench_*.json")).write_text("{")
        (folders[1] / RUN_FILE).write_text('{"schema": "run/1"}')
    record = run_fleet(tmp_path)
    assert record.verdict == "pass"
    (line,) = [line for line in record.notes if "cannot be read" in line]
    assert line.startswith("4 records left out that cannot be read: ")
    assert {row.runs for group in record.groups for row in group.rows} == {4}


def test_runs_dated_after_now_are_nobodys_newest(tmp_path: Path) -> None:
    add_run(tmp_path, "one", days_ago=20, served=note(OLD))
    add_run(tmp_path, "one", days_ago=-30, served=note(NEW))
    host = host_of(run_fleet(tmp_path), "one")
    assert host.is_silent
    assert [one.name for one in host.served] == [OLD]


@pytest.mark.parametrize("name", ["days", "silent_days", "behind_days"])
@pytest.mark.parametrize("value", [0.0, -1.0, 4000.0])
def test_impossible_days_are_named(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=f"{name}: got {value:g}; expected above 0 to 3650"):
        run_fleet(tmp_path, **{name: value})


def test_the_command_shows_the_hosts_and_ends_with_the_verdict(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "opslib.cli", "report", "fleet", "--root", tmp_path / "desk"]
    answer = run_python(command)
    assert answer.returncode == 2
    assert len(answer.stderr.strip().splitlines()) == 1
    for name, whole in (("one", 1.0), ("two", 1.0), ("three", 1.3)):
        add_benches(tmp_path / "desk", name, whole=whole, served=note(NEW))
    answer = run_python(command)
    assert answer.returncode == 3, answer.stderr
    assert "slower than its like" in answer.stdout
    assert "fail: three by" in answer.stdout
    shutil.rmtree(tmp_path / "desk")
    (tmp_path / "desk").mkdir()
    answer = run_python(command)
    assert (answer.returncode, answer.stdout.count("\n")) == (4, 1)
