"""H-1: beyond five models the oldest go, none that is in use, each with what is its own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opslib.core.files import hide_name
from opslib.core.served import ServedModel, ServedState, served_state_path
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import find_release, pin_release
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from opslib.upkeep import claims
from opslib.upkeep.in_use import InUse, find_in_use
from tests.serving.conftest import make_place as make_serving_place
from tests.upkeep.places import Place, make_place, set_age, tiny_model


def name_of(number: int) -> str:
    return f"model-202611{number:02d}-000000-abc1234.onnx"


def fill(place: Place, count: int = 8) -> None:
    """Write models of which number 1 is the oldest."""
    for number in range(1, count + 1):
        place.write_model(name_of(number), days=count - number + 1)


def left(place: Place) -> list[int]:
    found = (path.name for path in (place.exp / "export").glob("model-*.onnx"))
    return sorted(int(name[12:14]) for name in found)


def test_the_five_newest_models_stay(place: Place) -> None:
    fill(place)
    place.run()
    assert left(place) == [4, 5, 6, 7, 8]


def test_what_is_in_use_is_asked_no_more_often_the_more_there_is_to_delete(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(70):
        place.write_model(f"model-20261101-{number:06d}-abc1234.onnx", days=70 - number)
    planned = place.plan()
    asked: list[int] = []

    def look(*given: object) -> InUse:
        asked.append(len(asked))
        if len(asked) == 2:  # two models of the first lot are hidden by now
            (place.exp / "export" / "latest.onnx").symlink_to("model-20261101-000001-abc1234.onnx")
        return find_in_use(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "find_in_use", look)
    outcome = planned.plan.execute()
    assert len(asked) <= 2 * claims.LOTS
    assert [one.action.target for one in outcome.skipped] == [
        "export/model-20261101-000001-abc1234.onnx"
    ]
    assert len(list((place.exp / "export").glob("model-*.onnx"))) == 6
    assert not list((place.exp / "export").glob(".*"))


def test_what_took_the_name_of_a_model_meanwhile_keeps_its_weights(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, 5)
    old = place.write_model("model-20261001-000000-abc1234.onnx", "w.data", days=40)
    planned = place.plan()

    def look(*given: object) -> InUse:
        if not old.exists():
            place.write_model(old.name, "w.data")
        return find_in_use(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "find_in_use", look)
    planned.plan.execute()
    assert old.exists()
    assert old.with_name("w.data").exists()


def test_five_models_or_fewer_are_left_alone(place: Place) -> None:
    fill(place, 5)
    assert not place.targets()


def test_what_is_in_use_stays_and_counts(place: Place) -> None:
    fill(place, 9)
    (place.exp / "export" / "latest.onnx").symlink_to(name_of(2))
    served = ServedModel(
        path=place.exp / "export" / name_of(3),
        sha256="0" * 64,
        version_tag="t",
        generation=2,
        switched_at_utc="",
    )
    before = served.model_copy(update={"path": place.exp / "export" / name_of(4)})
    ServedState(current=served, previous=(before,)).write(served_state_path(place.config))
    place.config_path.with_name(".env").write_text(f"MODEL_PATH=exp/export/{name_of(5)}\n")
    place.run()
    assert left(place) == [2, 3, 4, 5, 9]


def test_more_models_in_use_than_may_be_kept_all_stay(tmp_path: Path) -> None:
    place = make_place(tmp_path, "keep_onnx: 1")
    fill(place, 6)
    (place.exp / "export" / "latest.onnx").symlink_to(name_of(1))
    (place.exp / "checkpoints").mkdir()
    (place.exp / "checkpoints" / "stable").symlink_to(f"../export/{name_of(3)}")
    place.run()
    assert left(place) == [1, 3, 6]


def test_a_clock_that_jumped_hides_no_newest_model(tmp_path: Path) -> None:
    place = make_place(tmp_path, "keep_onnx: 1")
    fill(place, 6)
    set_age(place.exp / "export" / name_of(2), -0.2)
    place.run()
    assert left(place) == [2, 6]


def test_the_model_that_the_export_report_names_stays(place: Place) -> None:
    fill(place, 7)
    report = {"onnx_path": f"export/{name_of(1)}", "ckpt_path": "checkpoints/best.pt"}
    place.write("export/export_report.json", json.dumps(report))
    place.run()
    assert left(place) == [1, 4, 5, 6, 7]


def test_a_model_goes_with_its_weights_and_its_card(place: Place) -> None:
    fill(place, 7)
    place.write_model(name_of(1), "one.data", "more.data", days=7, card={"backbone": "net"})
    place.write("export/one.data.bak", days=7)
    place.write("export/golden/0.jpg", days=7)
    step = place.plan().plan.actions[0]
    assert "with more.data, one.data, model-20261101-000000-abc1234.json" in step.why
    record = place.run().record
    there = {path.name for path in (place.exp / "export").iterdir()}
    assert left(place) == [3, 4, 5, 6, 7]
    assert not {"one.data", "more.data", "model-20261101-000000-abc1234.json"} & there
    assert {"one.data.bak", "golden"} <= there
    second = len(tiny_model())
    assert record.freed_by_duty_bytes == {"models": step.frees_bytes + second}


def test_weights_of_two_models_stay_while_one_of_them_does(place: Place) -> None:
    fill(place, 7)
    place.write_model(name_of(1), "shared.data", days=7)
    place.write_model(name_of(7), "shared.data", days=1)
    place.run()
    assert left(place) == [3, 4, 5, 6, 7]
    assert (place.exp / "export" / "shared.data").exists()


def test_weights_of_two_models_go_with_the_last_of_them(place: Place) -> None:
    fill(place, 7)
    place.write_model(name_of(1), "shared.data", days=7)
    place.write_model(name_of(2), "shared.data", days=6)
    size = (place.exp / "export" / name_of(1)).stat().st_size
    record = place.run().record
    assert not (place.exp / "export" / "shared.data").exists()
    assert record.freed_bytes == 2 * size + 100


def test_a_damaged_model_goes_with_the_weights_named_after_it_alone(place: Place) -> None:
    fill(place, 7)
    place.write(f"export/{name_of(1)}", b"no model", days=7)
    place.write(f"export/{name_of(1)}.data", days=7)
    place.write(f"export/{name_of(1)}.notes", days=7)
    place.run()
    there = {path.name for path in (place.exp / "export").iterdir()}
    assert f"{name_of(1)}.data" not in there
    assert f"{name_of(1)}.notes" in there


def test_no_link_leads_a_deletion_out_of_the_folder(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.data").write_bytes(b"theirs")
    fill(place, 7)
    (place.exp / "export" / "far").symlink_to(outside)
    (place.exp / "export" / "near.data").symlink_to(outside / "w.data")
    place.write_model(name_of(1), "far/w.data", days=7)
    place.write_model(name_of(2), "near.data", days=6)
    place.run()
    assert left(place) == [3, 4, 5, 6, 7]
    assert (outside / "w.data").read_bytes() == b"theirs"
    assert (place.exp / "export" / "near.data").is_symlink()


def test_an_export_folder_that_is_a_link_out_is_left_alone(place: Place, tmp_path: Path) -> None:
    fill(place)
    (place.exp / "export").rename(tmp_path / "elsewhere")
    (place.exp / "export").symlink_to(tmp_path / "elsewhere")
    record = place.run().record
    assert [item.target for item in record.skipped] == ["models"]
    assert len(left(place)) == 8


def test_a_card_named_like_the_export_report_is_not_taken_with_a_model(place: Place) -> None:
    fill(place, 6)
    place.write_model("export_report.onnx", days=30)
    place.write("export/export_report.json", "{}", days=30)
    place.run()
    assert not (place.exp / "export" / "export_report.onnx").exists()
    assert (place.exp / "export" / "export_report.json").exists()


def test_a_model_that_comes_into_use_after_the_plan_is_skipped(place: Place) -> None:
    fill(place, 7)
    planned = place.plan()
    (place.exp / "export" / "latest.onnx").symlink_to(name_of(1))
    outcome = planned.plan.execute()
    assert left(place) == [1, 3, 4, 5, 6, 7]
    assert [one.reason for one in outcome.skipped] == [
        "it is in use by now: latest.onnx points at it"
    ]


def test_a_model_that_was_replaced_after_the_plan_is_skipped(place: Place) -> None:
    fill(place, 7)
    planned = place.plan()
    place.write_model(name_of(1), days=6.5)
    assert [one.reason for one in planned.plan.execute().skipped] == [
        "it changed after the plan was made"
    ]


def test_a_deletion_that_was_killed_is_finished_by_the_next_run(place: Place) -> None:
    fill(place, 5)
    gone = place.write_model("model-20261001-000000-abc1234.onnx", "w.data", days=40, card={})
    gone.rename(hide_name(gone, "deleted"))
    place.run()
    there = sorted(path.name for path in (place.exp / "export").iterdir())
    assert there == [name_of(number) for number in range(1, 6)]


def test_an_unreadable_state_of_the_service_keeps_every_model(place: Place) -> None:
    fill(place)
    place.write("checkpoints/last_001.pt", days=60)
    place.write("checkpoints/last_002.pt", days=50)
    place.write("logs/train.out", days=8)
    served_state_path(place.config).write_text("{")
    record = place.run().record
    assert len(left(place)) == 8
    assert {item.target for item in record.skipped} == {
        "models",
        "quantized",
        "checkpoints",
        "releases",
        "restored releases",
    }
    assert "it is not known what is served" in record.skipped[0].reason
    assert [item.duty for item in record.done] == ["logs"]


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A service that answers every request alike; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def point_at(place: Place, url: str) -> None:
    text = place.config_path.read_text()
    place.config_path.write_text(text.replace("http://127.0.0.1:9", url))
    place.config_path.with_name(".env").write_text(f"API_KEY={make_key()}\n")


@pytest.mark.parametrize("answer", ["path", "name", "digest"])
def test_what_a_foreign_service_says_it_serves_stays(place: Place, answer: str) -> None:
    fill(place)
    path = place.exp / "export" / name_of(1)
    body = {
        "path": {"model_path": str(path)},
        "name": {"model_path": f"/inside/its/container/{name_of(1)}"},
        "digest": {"model_sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }[answer]
    os.utime(path, (0, 0))
    for other in range(2, 9):  # tiny models are alike; these are not
        with (place.exp / "export" / name_of(other)).open("ab") as file:
            file.write(b"\x12\x01" + bytes([65 + other]))
        set_age(place.exp / "export" / name_of(other), 9 - other)
    with answering(200, json.dumps(body)) as url:
        point_at(place, url)
        place.run()
    assert left(place) == [1, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("status", "body"), [(401, "{}"), (500, ""), (200, "<html>log in</html>"), (200, "{}")]
)
def test_a_service_that_does_not_say_what_it_serves_keeps_every_model(
    place: Place, status: int, body: str
) -> None:
    fill(place)
    with answering(status, body) as url:
        point_at(place, url)
        record = place.run().record
    assert len(left(place)) == 8
    assert f"answered {status} and not what it serves" in record.skipped[0].reason


def test_a_service_whose_key_is_not_known_keeps_every_model(place: Place) -> None:
    fill(place)
    with answering(401, "{}") as url:
        point_at(place, url)
        place.config_path.with_name(".env").unlink()
        record = place.run().record
    assert len(left(place)) == 8
    assert "API_KEY is not set" in record.skipped[0].reason


def test_what_our_service_says_it_serves_stays(tmp_path: Path) -> None:
    serving = make_serving_place(tmp_path / "serving")
    key = make_key()
    with start_service(serving.config_path, variables={"API_KEY": key}) as service:
        place = Place(serving.config_path)
        serving.config_path.write_text(
            serving.config_path.read_text()
            + f"client: {{url: '{service.url}'}}\nmaintenance: {{keep_onnx: 1, disks: [/]}}\n"
        )
        serving.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
        set_age(serving.second, 40)
        (serving.export / "latest.onnx").unlink()
        served_state_path(place.config).unlink(missing_ok=True)
        record = place.run().record
    assert serving.second.exists()
    assert any("serves" in note for note in record.notes)


def test_models_of_a_pinned_release_stay_under_any_name(tmp_path: Path) -> None:
    serving = make_serving_place(tmp_path / "serving")
    place = Place(serving.config_path)
    made = build_release(
        place.config, ReleaseRequest(onnx=serving.first, only=True, allow_missing_metrics=True)
    )
    pin_release(place.config, find_release(place.config).name)
    assert made.path
    serving.config_path.write_text(
        serving.config_path.read_text() + "maintenance: {keep_onnx: 1, disks: [/]}\n"
    )
    renamed = serving.first.rename(serving.first.with_name("kept.onnx"))
    other = serving.export / "other.onnx"
    other.write_bytes(serving.first.with_name("kept.onnx").read_bytes() + b"\x12\x01A")
    for path in (renamed, other):
        set_age(path, 90)
    set_age(serving.second, 1)
    place.run()
    assert renamed.exists()
    assert not other.exists()


def test_int8_variants_of_a_model_that_is_gone_go_after_thirty_days(place: Place) -> None:
    fill(place, 1)
    stem = name_of(1).removesuffix(".onnx")
    for folder, days in ((stem, 90), ("gone", 31), ("young", 29)):
        path = place.write_model("x.onnx", "x.onnx.data", days=days, card={})
        for part in (path, path.with_name("x.onnx.data"), path.with_name("x.json")):
            place.write(f"quantized/{folder}/{part.name}", part.read_bytes(), days=days)
            part.unlink()
    place.run()
    folders = {path.name: len(list(path.iterdir())) for path in (place.exp / "quantized").iterdir()}
    assert folders == {stem: 3, "young": 3}


def test_no_model_goes_while_the_export_report_cannot_be_read(place: Place) -> None:
    fill(place, 7)
    place.write("export/export_report.json", "")
    done = place.run()
    assert left(place) == [1, 2, 3, 4, 5, 6, 7]
    assert "export_report.json: evidence that is there but cannot be read" in str(done)
