"""Many light services that answer the contract, in one process, each under a path of its own.

They hold no model: they say the path and digest that they were switched to, and the golden answer.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import yaml

from tests.fleet.playing import ROOT, write_python

Fault = Literal["refuses", "lies", "wrong", "silent"]
HELD_S = 120.0
KEY = "0" * 64
GOLDEN = {"class_id": 1, "confidence": 0.9}


@dataclass
class LightFleet:
    """The services by name: what each serves, what is the matter with it, who was switched when."""

    folder: Path
    names: tuple[str, ...]
    faults: dict[str, Fault] = field(default_factory=dict)
    serves: dict[str, Path] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)  # /version, in order
    switched: list[tuple[float, str, str]] = field(default_factory=list)  # in order
    held: str = ""  # the /reload of this one is answered when `go` is set
    go: threading.Event = field(default_factory=threading.Event)
    switch_s: float = 0.0  # how long a /reload takes

    @property
    def old(self) -> Path:
        """The model that each serves at first."""
        return self.folder / "old.onnx"

    @property
    def new(self) -> Path:
        """The model that is rolled."""
        return self.folder / "new.onnx"

    @property
    def served_new(self) -> set[str]:
        """Those that serve the new model."""
        return {name for name, model in self.serves.items() if model == self.new}

    @property
    def first_switched(self) -> list[str]:
        """Those that were switched to the new model, in this order."""
        return [name for _, name, model in self.switched if model == self.new.name]

    def put_back(self, faults: Mapping[str, Fault]) -> None:
        """Let all serve the old model, and these have faults."""
        self.serves = dict.fromkeys(self.names, self.old)
        self.faults = dict(faults)
        self.switched, self.asked, self.held = [], [], ""
        self.go.clear()

    def answer(self, name: str, route: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Return the status and the object that a request is answered with."""
        fault = self.faults.get(name)
        if route == "version":
            self.asked.append((time.monotonic(), name))
            if fault == "silent":
                return 503, {"detail": "no model is loaded"}
            model = self.serves[name]
            return 200, {"model_path": str(model), "model_sha256": digest(model)}
        if route == "predict":
            is_wrong = fault == "wrong" and self.serves[name] == self.new
            return 200, {**GOLDEN, "class_id": 2} if is_wrong else dict(GOLDEN)
        if name == self.held:
            self.go.wait(HELD_S)
        if self.switch_s:
            time.sleep(self.switch_s)  # that of a service which loads a model
        if fault == "refuses":
            return 422, {"detail": "not this one"}
        if fault != "lies":
            self.serves[name] = Path(json.loads(body)["model_path"])
            self.switched.append((time.monotonic(), name, self.serves[name].name))
        return 200, {"ok": True}


def digest(path: Path) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def open_light(folder: Path, count: int) -> Iterator[LightFleet]:
    """Serve `count` of them, and write `hosts.yml` beside the two models."""
    fleet = LightFleet(folder, tuple(f"gpu{number:03}" for number in range(count)))
    fleet.old.write_bytes(b"the old model")
    fleet.new.write_bytes(b"the new model")
    image = folder / "golden.jpg"
    image.write_bytes(b"no JPEG, nobody decodes it")
    card = {
        "files": [{"path": fleet.new.name, "size": 13, "sha256": digest(fleet.new)}],
        "golden": [
            {
                "image": image.name,
                "sha256": digest(image),
                "class_id": GOLDEN["class_id"],
                "probabilities": [0.1, GOLDEN["confidence"]],
            }
        ],
    }
    fleet.new.with_suffix(".json").write_text(json.dumps(card))
    (folder / ".env").write_text(f"API_KEY={KEY}\n")
    fleet.put_back({})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _, name, route = self.path.split("/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_known = self.headers["X-API-Key"] == KEY
            status, said = fleet.answer(name, route, body) if is_known else (401, {"detail": "key"})
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        write_inventory(fleet, f"http://127.0.0.1:{server.server_address[1]}")
        yield fleet
        server.shutdown()


def write_inventory(fleet: LightFleet, url: str) -> None:
    example = yaml.safe_load((ROOT / "fleet" / "hosts.example.yml").read_text())["services"]
    variables = {
        **example["vars"],
        "ansible_connection": "local",
        "ansible_python_interpreter": str(write_python(fleet.folder)),
        "env_file": str(fleet.folder / ".env"),
        "model_dir": str(fleet.folder),
        "shared": True,
    }
    hosts = {name: {"service_url": f"{url}/{name}"} for name in fleet.names}
    content = {"services": {"hosts": hosts, "vars": variables}}
    (fleet.folder / "hosts.yml").write_text(yaml.safe_dump(content))


def roll_command(fleet: LightFleet, *words: str) -> list[str]:
    """The command line of a roll over them."""
    ansible = str(Path(sys.executable).with_name("ansible-playbook"))
    playbook = str(ROOT / "fleet" / "roll.yml")
    model = ["-e", f"model={fleet.new}"]
    return [ansible, "-i", str(fleet.folder / "hosts.yml"), playbook, *model, *words]
