"""The client's side: switching hosts in turn, confirming, rolling back, rotating the key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from opslib.core.errors import ConfigError, ModelError
from opslib.core.models import find_model_files
from opslib.core.sections import ClientSection
from opslib.ops.release.rollback import find_stable, plan_rollback
from opslib.serving import reachable
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.keys import make_key
from opslib.serving.live import LiveVersion, normalise_url
from opslib.serving.load import LoadPlan, start_load
from opslib.serving.reachable import ask_version
from opslib.serving.swap import confirm, switch_hosts
from tests.serving.conftest import Live, Place

TWO_STAGE = ClientSection(request_field="classification_path", path_field="classifier")


class Foreign(BaseHTTPRequestHandler):
    """A two-stage service that is not ours: other field names and no digest."""

    served: ClassVar[str] = "/models/old.onnx"
    asked: ClassVar[list[dict[str, Any]]] = []
    obeys: ClassVar[bool] = True

    def do_GET(self) -> None:
        self._answer({"classifier": Foreign.served, "detector": "d.onnx"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Foreign.asked.append(body)
        if Foreign.obeys:
            Foreign.served = body["classification_path"]
        self._answer({"ok": True})

    def _answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def foreign(*, obeys: bool = True) -> Iterator[str]:
    Foreign.served, Foreign.asked, Foreign.obeys = "/models/old.onnx", [], obeys
    server = HTTPServer(("127.0.0.1", 0), Foreign)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connect(live: Live) -> ServiceClient:
    return ServiceClient(live.service.url, live.service.key, ClientSection())


def test_a_switch_is_confirmed_by_the_digest(live: Live) -> None:
    live.reload(live.place.second)
    said: list[str] = []
    switch_hosts([connect(live)], str(live.place.first), said.append)
    assert "before model-b" in said[0]
    assert "after  model-a" in said[1]
    assert "the path was compared" not in said[1]
    assert live.version["version_tag"] == "model-a"


def test_the_first_failing_host_ends_it(live: Live) -> None:
    live.reload(live.place.second)
    nobody = ServiceClient("http://127.0.0.1:9", make_key(), ClientSection(), timeout_s=1)
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        switch_hosts([nobody, connect(live)], str(live.place.first), lambda _line: None)
    assert caught.value.stage == "connect"
    assert live.version["version_tag"] == "model-b"


def test_a_refusal_keeps_status_body_stage_and_hint(live: Live) -> None:
    with pytest.raises(ServiceError, match=r'400 .*"code": *"model_refused"') as caught:
        connect(live).reload("/nowhere/m.onnx")
    assert (caught.value.status, caught.value.stage) == (400, "path")
    assert "reload.model_dirs" in caught.value.hint


def test_a_wrong_key_has_its_own_hint(live: Live) -> None:
    with pytest.raises(ServiceError) as caught:
        ServiceClient(live.service.url, make_key(), ClientSection()).version()
    assert caught.value.status == 401
    assert "rotated" in caught.value.hint


def test_a_foreign_service_is_confirmed_by_its_path(tmp_path: Path) -> None:
    said: list[str] = []
    with foreign() as host:
        client = ServiceClient(host, make_key(), TWO_STAGE)
        switch_hosts([client], "/models/new.onnx", said.append)
    assert Foreign.asked == [{"classification_path": "/models/new.onnx"}]
    assert said[-1].endswith(": the path was compared")
    assert "digest unverified" in said[-1]


def test_a_service_that_says_ok_and_serves_another_model_is_not_believed() -> None:
    with foreign(obeys=False) as host:
        client = ServiceClient(host, make_key(), TWO_STAGE)
        with pytest.raises(ServiceError, match=r"serves /models/old\.onnx") as caught:
            switch_hosts([client], "/models/new.onnx", lambda _line: None)
    assert caught.value.stage == "confirm"


def test_another_digest_is_not_confirmed() -> None:
    live = LiveVersion("/m.onnx", "b" * 64, "m", 1)
    with pytest.raises(ServiceError, match="not confirmed"):
        confirm("http://x", live, "/m.onnx", frozenset({"a" * 64}))


def test_hosts_may_be_given_without_a_scheme() -> None:
    assert normalise_url("gpu2:8000") == "http://gpu2:8000"
    assert normalise_url("https://api.example/") == "https://api.example"


def version_of(path: Path) -> LiveVersion:
    return LiveVersion(str(path), find_model_files(path).digest(), path.stem, 1)


def test_a_rollback_goes_to_the_older_export(place: Place) -> None:
    stable = find_stable(place.config, version_of(place.second))
    assert stable.path == place.first
    plan = plan_rollback(stable, lambda: None)
    assert "model-a.onnx" in "\n".join(plan.lines())


def test_a_rollback_prefers_what_was_served_before(live: Live) -> None:
    live.reload(live.place.second)
    live.reload(live.place.first)
    stable = find_stable(live.place.config, version_of(live.place.first))
    assert stable.path == live.place.second
    assert "served" in stable.why


def test_a_model_that_changed_since_it_was_served_is_passed_over(live: Live, place: Place) -> None:
    place.first.unlink()
    with pytest.raises(ModelError, match="no other usable model"):
        find_stable(place.config, version_of(place.second))


@pytest.mark.parametrize("cut", ["{} ", " {}", "{}\r", "{}\n", "{}\t", "{}\0", "schlüssel-{}"])
def test_a_key_that_no_request_can_carry_is_refused_at_every_door_and_never_shown(
    place: Place, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    key = cut.format(make_key())
    url = "http://127.0.0.1:9"
    plan = LoadPlan(url=url, images=(), requests=1, rate_per_s=None)
    secret = SimpleNamespace(api_key=SecretStr(key))
    monkeypatch.setattr(reachable, "load_service_environment", lambda _config: secret)
    doors: list[Callable[[], object]] = [
        lambda: ServiceClient(url, key, ClientSection()),
        lambda: ask_version(place.config, url),
        lambda: start_load(plan, key).__enter__(),
    ]
    for door in doors:
        with pytest.raises(ConfigError, match=r"API_KEY: .* and in \.env") as caught:
            door()
        assert key.strip()[-64:] not in str(caught.value)
