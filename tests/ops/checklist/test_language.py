"""The checklist in Korean: the same items and figures, and no English sentence is left in it."""

from __future__ import annotations

import re
from html import unescape

from opslib.core.formatting import utc_now
from opslib.ops.checklist.record import ChecklistRecord
from opslib.ops.checklist.run import CHECKS, run_checklist
from opslib.ops.checklist.story import items_html, items_text
from tests.korean import find_english
from tests.ops.checklist.conftest import Plant, closed_port, json_line

# Of names and of what others say: the service's log, the system, the kind of a file.
FOREIGN = ("bench", "boom", "cloudflared", "cpu", "latest", "model", "refused", "release")


def check(plant: Plant, language: str, **keys: str) -> ChecklistRecord:
    return run_checklist(plant.config(language=language, **keys), "monthly")


def left_of(record: ChecklistRecord) -> list[str]:
    lines = [record.finding, *(line for item in record.items for line in item.told)]
    lines += [item.next_step for item in record.items if item.next_step]
    return [
        f"{line}: {words}"
        for line in lines
        if (words := [one for one in find_english(line) if one not in FOREIGN])
    ]


def test_a_healthy_month_is_told_in_korean(plant: Plant) -> None:
    english, korean = check(plant, "en"), check(plant, "ko")
    assert left_of(korean) == []
    assert korean.verdict == english.verdict == "pass"
    assert korean.finding == f"월간 점검: 이상이 없고, 정상인 항목은 {len(CHECKS)}개이다."
    assert [one.title for one in korean.items] == [one.title for one in english.items]
    assert [one.state for one in korean.items] == [one.state for one in english.items]


def test_what_is_wrong_and_what_to_do_are_told_in_korean(plant: Plant) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/health"
    log = plant.config().logs_dir / "api.err"
    before = log.read_bytes()
    try:
        log.write_bytes(before + json_line("boom 7", at=utc_now()).encode())
        record = check(
            plant,
            "ko",
            health__external_url=dead,
            checklist__key_age_days="1e-9",
            checklist__bench_age_days="1e-9",
            checklist__release_age_days="1e-9",
            checklist__proof_age_days="1e-9",
            checklist__maintenance_age_h="1e-9",
            checklist__disk_attention_pct="0.1",
            checklist__upload_limit_mb="1",
            rotate__log="logs/none.log",
        )
    finally:
        log.write_bytes(before)
    assert record.verdict == "fail"
    assert "실패한 항목: 상태 확인(외부)" in record.finding
    assert left_of(record) == []
    outside = record.item("outside")
    assert outside is not None
    assert outside.next_step == (
        "터널을 다시 시작한다: `sc.exe stop Cloudflared`, `sc.exe start Cloudflared`"
    )
    text = items_text(record)
    assert "실패: 상태 확인(외부): " in text
    assert "    다음 조치: " in text
    page = unescape(re.sub(r"<code>.*?</code>|<[^>]*>", " ", items_html(record)))
    assert "월간 체크리스트" in unescape(items_html(record))
    assert [one for one in find_english(page) if one not in FOREIGN] == []


def test_nothing_answers_and_nothing_is_set_up_is_told_in_korean(plant: Plant) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    empty = plant.folder / "nothing"
    empty.mkdir(exist_ok=True)
    record = check(
        plant,
        "ko",
        client__url=dead,
        health__internal_url=f"{dead}/health",
        paths__exp_dir=str(empty),
    )
    assert left_of(record) == []
