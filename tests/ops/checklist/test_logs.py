"""H-9: the daily look into the API's and the tunnel's log."""

from __future__ import annotations

import gzip
import os
from datetime import timedelta
from pathlib import Path

import pytest

from opslib.core.errors import ConfigError
from opslib.core.formatting import utc_now
from opslib.ops.checklist.logs import check_api_log, check_tunnel_log
from tests.ops.checklist.conftest import Plant, json_line


def write_log(plant: Plant, text: str, name: str = "api.err") -> Path:
    path = plant.place.config.logs_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_log_without_errors_is_ok(resting: Plant) -> None:
    write_log(resting, json_line("CORS origin refused", level="WARNING"))
    answer = check_api_log(resting.visit())
    assert answer.state == "ok"
    assert answer.evidence[0].startswith("no error since")
    assert answer.next_step is None


def test_errors_want_attention_and_are_shown_with_count_and_times(resting: Plant) -> None:
    write_log(resting, json_line("disk full 1") + json_line("disk full 2"))
    answer = check_api_log(resting.visit())
    assert answer.state == "attention"
    assert answer.evidence[0].startswith("2 error lines in 1 group since")
    assert answer.evidence[1].startswith("2 × disk full 2 (")
    assert "grep ERROR" in (answer.next_step or "")


def test_many_errors_or_a_critical_one_have_failed(resting: Plant) -> None:
    write_log(resting, json_line("lost") * 100)
    assert check_api_log(resting.visit()).state == "failed"
    assert check_api_log(resting.visit(checklist__log_errors_failed="101")).state == "attention"
    write_log(resting, json_line("gone", level="CRITICAL"))
    assert check_api_log(resting.visit()).state == "failed"


def test_errors_before_the_window_are_history(resting: Plant) -> None:
    write_log(resting, json_line("lost", at=utc_now() - timedelta(hours=25)))
    assert check_api_log(resting.visit()).state == "ok"
    assert check_api_log(resting.visit(hours=26)).state == "attention"


def test_what_was_rotated_away_within_the_window_is_read_too(resting: Plant) -> None:
    write_log(resting, "")
    archive = resting.place.config.logs_dir / "archive" / "api.err.20261125-020000.gz"
    archive.parent.mkdir()
    archive.write_bytes(gzip.compress(json_line("lost").encode()))
    answer = check_api_log(resting.visit())
    assert answer.state == "attention"
    assert "2 files" in answer.evidence[0]
    old = (utc_now() - timedelta(days=2)).timestamp()
    os.utime(archive, (old, old))
    assert check_api_log(resting.visit()).state == "ok"


def test_configured_texts_let_a_line_pass(resting: Plant) -> None:
    write_log(resting, json_line("context canceled"), "cloudflared.log")
    assert check_tunnel_log(resting.visit()).state == "attention"
    answer = check_tunnel_log(resting.visit(checklist__log_ignore="canceled, no such"))
    assert answer.state == "ok"
    assert "1 ignored as configured" in answer.evidence[0]


def test_a_tunnel_log_elsewhere_is_read_where_it_is_named(resting: Plant, tmp_path: Path) -> None:
    elsewhere = tmp_path / "tunnel.log"
    elsewhere.write_text(f"{utc_now().isoformat()} ERR no route to the edge\n")
    answer = check_tunnel_log(resting.visit(checklist__cloudflared_log=str(elsewhere)))
    assert answer.state == "attention"
    assert "no route to the edge" in answer.evidence[1]


def test_a_missing_tunnel_log_is_said_and_the_demo_has_none(resting: Plant) -> None:
    assert check_tunnel_log(resting.visit()).state == "attention"
    (resting.place.config.exp_dir / ".demo.json").write_text("{}")
    answer = check_tunnel_log(resting.visit())
    assert answer.state == "not applicable"
    assert answer.evidence[0].startswith("not set up")


def test_a_folder_in_the_place_of_the_tunnel_log_is_no_log(resting: Plant, tmp_path: Path) -> None:
    answer = check_tunnel_log(resting.visit(checklist__cloudflared_log=str(tmp_path)))
    assert answer.state == "attention"
    assert answer.evidence[0].startswith("not set up")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_log_that_may_not_be_read_is_unknown_and_says_why(resting: Plant) -> None:
    write_log(resting, json_line("lost")).chmod(0)
    answer = check_api_log(resting.visit())
    assert answer.state == "unknown"
    assert "Permission denied" in " ".join(answer.evidence)


def test_a_damaged_archive_is_named_and_hides_no_error(resting: Plant) -> None:
    write_log(resting, json_line("lost"))
    (resting.place.config.logs_dir / "api.err.1.gz").write_bytes(b"damaged")
    answer = check_api_log(resting.visit())
    assert answer.state == "attention"
    assert "api.err.1.gz: not read to its end" in answer.evidence[-1]
    write_log(resting, "")
    assert check_api_log(resting.visit()).state == "unknown"


def test_a_service_that_never_ran_is_said(resting: Plant) -> None:
    answer = check_api_log(resting.visit())
    assert answer.state == "attention"
    assert "never ran" in answer.evidence[0]


def test_all_logs_of_the_list_are_read_and_counted(resting: Plant) -> None:
    now = utc_now().astimezone()
    where = "pillsnap:load_model:212"
    write_log(resting, json_line("lost 1"))
    access = (
        'INFO:     127.0.0.1:50000 - "POST /predict HTTP/1.1" 500 Internal Server Error\n'
        '{"at_utc": "2026-11-28T00:00:00+00:00", "status": 500, "path": "/ERROR", "error": null}\n'
        f"{now:%H:%M:%S} | INFO     | ERROR rate 0.1\n"
    )
    write_log(resting, f"{access}ERROR:    Exception in ASGI application\n", "api.out")
    text = f"{now:%Y-%m-%d %H:%M:%S} | ERROR    | {where} | cannot load model 7\n"
    write_log(resting, text, f"pillsnap_errors_{now:%Y%m%d}.log")
    visit = resting.visit(checklist__api_logs="api.err, api.out, *_errors_*.log")
    answer = check_api_log(visit)
    assert answer.state == "attention"
    assert answer.evidence[0].startswith("3 error lines in 3 groups since")
    assert "3 files" in answer.evidence[0]
    said = " ".join(answer.evidence)
    assert f"1 × {where} | cannot load model 7 (" in said
    assert "Exception in ASGI application" in said
    assert "1 line without a time: may be older" in said
    assert "api.out" in (answer.next_step or "")
    assert check_api_log(resting.visit()).evidence[0].startswith("1 error line in 1 group since")


def test_a_dated_log_is_found_in_the_archive_and_read_once(resting: Plant) -> None:
    write_log(resting, "")
    archive = resting.place.config.logs_dir / "archive" / "x_errors_20261128.log.20261128-020000.gz"
    archive.parent.mkdir()
    archive.write_bytes(gzip.compress(json_line("lost").encode()))
    answer = check_api_log(resting.visit(checklist__api_logs="api.err, *_errors_*.log, *.log"))
    assert answer.evidence[0].startswith("1 error line in 1 group since")


def test_a_log_of_the_list_that_is_not_there_is_said(resting: Plant) -> None:
    write_log(resting, "")
    visit = resting.visit(checklist__api_logs="api.err, api.out, *_errors_*.log")
    answer = check_api_log(visit)
    folder = resting.place.config.logs_dir
    assert answer.state == "attention"
    assert answer.evidence[1:] == (
        f"{folder}/api.out: no such log",
        f"{folder}/*_errors_*.log: no such log",
    )
    assert "checklist.api_logs" in (answer.next_step or "")
    (folder / "api.err").unlink()
    assert "never ran" in check_api_log(visit).evidence[0]


def test_an_old_log_of_the_list_is_there(resting: Plant) -> None:
    write_log(resting, "")
    old = write_log(resting, "", "x_errors_20200101.log")
    os.utime(old, (1, 1))
    assert check_api_log(resting.visit(checklist__api_logs="api.err, *_errors_*.log")).state == "ok"


@pytest.mark.parametrize("name", ["../api.err", "logs/**", "**", ".hidden", ""])
def test_a_pattern_of_logs_that_leads_elsewhere_is_refused(resting: Plant, name: str) -> None:
    with pytest.raises(ConfigError, match=r"checklist\.api_logs|CHECKLIST__API_LOGS"):
        resting.visit(checklist__api_logs=name)
