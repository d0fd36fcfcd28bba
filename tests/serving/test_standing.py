"""What is served and what should be: where they differ the service says so until it is settled."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from opslib.core.errors import InputError, ModelError
from opslib.core.files import link_atomic
from opslib.core.kinds import pick_kind
from opslib.core.models import resolve_model
from opslib.core.served import ServedState, read_served_state, served_state_path
from opslib.inference.find_model import find_onnx, list_exports
from opslib.ops.drill.target import find_live
from opslib.serving.app import create_app
from opslib.serving.keys import HEADER, make_key
from opslib.serving.reachable import find_roots
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from opslib.serving.staging import start_service
from opslib.serving.standing import Shortfall
from opslib.serving.start import load_first_model, start_order
from tests.running import PreparedProcess
from tests.serving.conftest import Place, make_cached, open_live
from tests.waiting import await_that


@contextmanager
def started(place: Place) -> Iterator[Service]:
    """The parts of a service after its start, without a socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_KEY", make_key())
        service = Service(load_settings(place.config))
    try:
        load_first_model(service)
        yield service
    finally:
        service.close()


def tags(service: Service) -> tuple[str | None, str | None]:
    """The tags of the model wanted, where another is served, and of the one served."""
    shortfall, current = service.standing.shortfall, service.generations.current
    wanted = shortfall.wanted.version_tag if shortfall and shortfall.wanted else None
    return wanted, current.model.candidate.version_tag if current else None


def reason(service: Service) -> str | None:
    """Why it is degraded, or None."""
    shortfall = service.standing.shortfall
    return shortfall.reason if shortfall else None


def remove(model: Path) -> None:
    """Delete a model with its sidecar and card."""
    for path in model.parent.glob(f"{model.stem}.*"):
        path.unlink()


def test_a_model_that_is_gone_at_a_restart_is_told_by_its_tag_until_another_is_chosen(
    place: Place,
) -> None:
    with start_service(place.config_path) as service:
        health = httpx.get(f"{service.url}/health").json()
        assert set(health) == {"status", "device", "engine", "model_loaded", "uptime_sec"}
        live = open_live(service, place)
        assert "degraded" not in live.version
        live.reload(place.first)
    remove(place.first)
    with start_service(place.config_path) as service:
        answer = httpx.get(f"{service.url}/health")
        health = answer.json()
        assert (answer.status_code, health["status"], health["model_loaded"]) == (
            200,
            "degraded",
            True,
        )
        assert (health["wanted"], health["served"]) == ("model-a", "model-b")
        assert health["reason"] == "it could not be loaded"
        assert str(place.export) not in answer.text
        live = open_live(service, place)
        assert live.version["degraded"] == {
            "wanted_path": str(place.first),
            "wanted_tag": "model-a",
            "why": "it was switched in last",
            "reason": "it could not be loaded",
        }
        assert live.predict(place.images[0]).status_code == 200
        error = next(line for line in place.read_log("api.err").splitlines() if "instead" in line)
        assert json.loads(error)["level"] == "ERROR"
        assert str(place.first) in error
        assert "/reload" in error
        assert live.reload(place.second).status_code == 200
        assert httpx.get(f"{service.url}/health").json()["status"] == "ok"
        assert "degraded" not in live.version
        place.second.write_bytes(place.second.read_bytes()[:-1])
        look = lambda: httpx.get(f"{service.url}/health").json()  # noqa: E731
        await_that(lambda: look()["status"] == "degraded", "the changed file's being noticed")
        assert look()["reason"] == "its files changed since it was loaded"


def test_what_stood_in_does_not_become_what_is_wanted(place: Place) -> None:
    with started(place) as service:
        service.reloader.reload_now("model-a.onnx")
    aside = shutil.copytree(place.export, place.export.with_name("aside"))
    remove(place.first)
    for generation in (3, 4):
        with started(place) as service:
            assert tags(service) == ("model-a", "model-b")
            assert service.generations.require().number == generation
    why = {root.path: root.why for root in find_roots(place.config)}
    assert why[place.first] == "it should be served"
    shutil.copytree(aside, place.export, dirs_exist_ok=True)
    with started(place) as service:
        assert (reason(service), tags(service)[1]) == (None, "model-a")
    state = read_served_state(place.config)
    assert state is not None
    assert state.wanted is None


def dangle(latest: Path) -> None:
    link_atomic(latest, "model-z.onnx")


def turn_in_a_circle(latest: Path) -> None:
    link_atomic(latest, "other.onnx")
    link_atomic(latest.with_name("other.onnx"), latest.name)


def be_a_folder(latest: Path) -> None:
    latest.unlink()
    latest.mkdir()


def lead_through_a_file(latest: Path) -> None:
    link_atomic(latest, "model-a.onnx/model.onnx")


BROKEN: list[tuple[Callable[[Path], None], str, str]] = [
    (dangle, "model-z", "points at model-z.onnx, which is not there"),
    (turn_in_a_circle, "latest", "its links lead in a circle"),
    (be_a_folder, "latest", "is a folder"),
    (lead_through_a_file, "model", "points at model-a.onnx/model.onnx, which is not there"),
]


@pytest.mark.parametrize(
    ("spoil", "tag", "said"), BROKEN, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_latest_that_leads_nowhere_is_wanted_all_the_same(
    place: Place, spoil: Callable[[Path], None], tag: str, said: str
) -> None:
    latest = place.export / "latest.onnx"
    spoil(latest)
    with pytest.raises(ModelError, match=said) as caught:
        find_onnx(place.config)
    assert "no other is taken in its place" in str(caught.value)
    with started(place) as service:
        assert tags(service) == (tag, "model-b")
    with started(place) as service:  # not forgotten for the one that stood in
        assert tags(service) == (tag, "model-b")
    shutil.rmtree(latest) if latest.is_dir() else latest.unlink()
    latest.symlink_to(place.first.name)
    with started(place) as service:
        assert (reason(service), tags(service)[1]) == (None, "model-a")


@pytest.mark.parametrize("damage", [b"{", b""])
def test_a_state_that_cannot_be_read_leaves_open_which_model_is_wanted(
    place: Place, damage: bytes
) -> None:
    path = served_state_path(place.config)
    path.write_bytes(damage)
    for _ in range(2):
        with started(place) as service:
            assert reason(service) == "which was served last is not known"
            assert tags(service) == (None, "model-b")
        with pytest.raises(InputError, match="which model should be served is not known"):
            find_roots(place.config)
    assert path.with_name("served.json.damaged").read_bytes() == damage
    with started(place) as service:
        service.reloader.reload_now("model-b.onnx")
        assert reason(service) is None
    assert find_roots(place.config)


def test_a_state_that_is_a_link_to_nowhere_is_no_first_start(place: Place) -> None:
    served_state_path(place.config).symlink_to("gone.json")
    with started(place) as service:
        assert reason(service) == "which was served last is not known"


def test_the_same_content_from_another_place_is_what_is_wanted(place: Place) -> None:
    with started(place) as service:
        service.reloader.reload_now("model-a.onnx")
    moved = place.first.rename(place.export / "model-moved.onnx")
    link_atomic(place.export / "latest.onnx", moved.name)
    with started(place) as service:
        assert (reason(service), tags(service)[1]) == (None, "model-moved")


def test_a_file_that_was_replaced_while_the_service_was_down_is_another_model(
    place: Place,
) -> None:
    with started(place) as service:
        service.reloader.reload_now("model-a.onnx")
    place.first.write_bytes(place.first.read_bytes().replace(b"classifier", b"classifies"))
    place.first.with_suffix(".json").unlink()
    with started(place) as service:
        assert tags(service) == ("model-a", "model-a")
        assert reason(service) == "its file is another than was switched in"


def test_no_model_at_all_is_degraded(place: Place) -> None:
    remove(place.first)
    remove(place.second)
    with started(place) as service:
        assert service.standing.shortfall is not None
        assert tags(service) == ("model-b", None)  # latest.onnx names it
        assert reason(service) == "no model could be loaded"
    (place.export / "latest.onnx").unlink()
    with started(place) as service:
        assert service.standing.shortfall == Shortfall("no model could be loaded")


def test_only_another_content_of_the_files_in_service_counts(place: Place) -> None:
    card = place.second.with_name("model-b.onnx.data")
    with started(place) as service:
        look = service.standing.look

        def reason_after_looks() -> str | None:
            look()
            look()
            return reason(service)

        kept = card.read_bytes()
        os.link(card, card.with_name("a-backup"))  # as a backup by hard links does
        os.utime(place.second)
        assert reason_after_looks() is None
        card.unlink()
        look()
        assert reason(service) == "its files changed since it was loaded"
        card.write_bytes(kept)
        assert reason_after_looks() is None
        card.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert reason_after_looks() == "its files changed since it was loaded"
        service.reloader.reload_now("model-a.onnx")
        assert reason_after_looks() is None


@contextmanager
def stranger(folder: Path) -> Iterator[None]:
    """Be somebody who may not look into `folder`."""
    mode = folder.stat().st_mode
    folder.chmod(0 if os.geteuid() else 0o700)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(mode)


def test_a_folder_that_may_not_be_entered_is_no_crash(place: Place) -> None:
    config = place.config
    with stranger(place.export):
        with pytest.raises(ModelError, match="cannot be read: Permission denied"):
            resolve_model(place.first)
        with pytest.raises(ModelError, match="export: cannot be read: Permission denied"):
            find_onnx(config)
        assert start_order(config, None, pick_kind(config)) == []


def test_an_export_that_is_removed_meanwhile_is_passed_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = place.export / "gone.onnx"
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([gone, place.first, place.second]))
    assert [path.name for path in list_exports(place.export, pick_kind(place.config))] == [
        "model-b.onnx",
        "model-a.onnx",
    ]


def test_a_state_in_which_all_is_well_is_one_that_earlier_builds_read(place: Place) -> None:
    with started(place):
        kept = json.loads(served_state_path(place.config).read_bytes())
    assert set(kept) == {"schema", "current", "previous"}
    assert ServedState.model_validate(kept).wanted is None


def test_a_model_that_lies_under_its_digest_is_the_one_that_its_link_means(place: Place) -> None:
    blob = place.config_path.parent / "blobs" / "0a1b2c3d"
    blob.parent.mkdir()
    shutil.copyfile(place.first, blob)
    link_atomic(place.export / "latest.onnx", blob)
    with started(place) as service:
        current = service.generations.current
        assert current is not None
        assert current.model.path == blob
        assert current.model.engine.facts.engine == "onnx"
        assert service.standing.shortfall is None


def test_a_model_of_a_hugging_face_cache_is_served_under_its_name_with_its_card(
    place: Place,
) -> None:
    net = make_cached(place.config_path.parent / "hub")
    link_atomic(place.export / "latest.onnx", net)
    for _ in range(2):  # the second is told by the state
        with started(place) as service:
            current = service.generations.current
            assert current is not None
            assert current.model.path == net
            assert current.model.candidate.version_tag == "net"
            assert current.model.candidate.gaps is None
            assert service.standing.shortfall is None
    assert find_live(place.config) == net


def test_a_name_that_is_no_utf_8_is_told_and_logged(place: Place) -> None:
    name = os.fsdecode(b"model-\xff.onnx")
    (place.export / name).write_bytes(b"no model")
    link_atomic(place.export / "latest.onnx", name)

    async def ask(service: Service) -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))
        headers = {HEADER: service.settings.api_key.decode()}
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get("/health"), await client.get("/version", headers=headers)

    with started(place) as service:
        health, version = asyncio.run(ask(service))
    assert (health.status_code, health.json()["wanted"]) == (200, Path(name).stem)
    assert version.status_code == 200
    assert version.json()["degraded"]["wanted_path"] == str(place.export / "latest.onnx")


def test_a_service_on_ipv6_says_where_it_answers(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    command = [sys.executable, "-m", "opslib.cli", "serve", "--host", "::1", "--port", "0"]
    with output.open("wb") as sink:
        process = PreparedProcess(
            [*command, "--config", str(place.config_path)],
            env=os.environ | {"API_KEY": make_key()},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        await_that(lambda: "serving" in output.read_text() or process.poll() is not None, "a start")
        found = re.search(r"http://\S+:\d+", " ".join(output.read_text().split()))
        assert found is not None, output.read_text()
        answer = httpx.get(f"{found.group()}/health", trust_env=False)
    finally:
        process.terminate()
        process.wait(30)
    assert answer.status_code == 200
