"""A service that honours the contract, and one that breaks it in a chosen way.

It has no model: what it answers follows from the digest of the file it was told to serve and the
bytes of the request. Run as `python -m tests.ops.drill.fake_service PORT_FILE MODEL FAULT`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opslib.core.errors import ModelError
from opslib.core.models import find_model_files

LOAD_S = 0.2
FAULTS = (
    "none",
    "drops the old model first",
    "mixes body and header",
    "mixes predictions",
    "lets the old model answer on",
    "answers 200 on failure",
    "serves a bad model",
    "counts a refusal as a switch",
    "never goes home",
)


class FakeService:
    """The whole service; `fault` is what is wrong with it."""

    def __init__(self, model: Path, fault: str) -> None:
        self.fault = fault
        self.generation = 1
        self.model: Path | None = model
        self.first = self.away = model
        self.digest = find_model_files(model).digest()
        self.before = self.digest
        self.key = os.environ["API_KEY"]
        self.busy = False

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/version", self.version),
                Route("/predict", self.predict, methods=["POST"]),
                Route("/reload", self.reload, methods=["POST"]),
            ]
        )

    async def health(self, request: Request) -> Response:
        """Always well."""
        return JSONResponse({"status": "ok", "device": "cpu", "model_loaded": True})

    async def version(self, request: Request) -> Response:
        """What is served."""
        return JSONResponse(
            {
                "model_path": str(self.model),
                "model_sha256": self.digest,
                "version_tag": self.model.stem if self.model else None,
                "generation": self.generation,
            }
        )

    async def predict(self, request: Request) -> Response:
        """A class that follows from model and image."""
        body = await request.body()
        if request.headers.get("x-api-key") != self.key:
            return JSONResponse({"detail": "no", "code": "unauthorized"}, 401)
        if self.model is None:
            return JSONResponse({"detail": "no model is loaded", "code": "no_model"}, 503)
        generation, digest = self.generation, self.digest
        spoken = digest
        odd = zlib.crc32(body) % 4 == 0
        if self.fault == "lets the old model answer on" and odd:
            generation, digest, spoken = max(1, generation - 1), self.before, self.before
        if self.fault == "mixes predictions" and odd and self.generation % 5 == 0:
            spoken = self.before
        header = generation
        if self.fault == "mixes body and header" and self.generation > 1 and odd:
            header = generation - 1
        headers = {"X-Generation": str(header), "X-Model-SHA256": digest}
        content = {
            "class_id": zlib.crc32(body + spoken.encode()) % 3,
            "version_tag": self.model.stem,
            "generation": generation,
        }
        return JSONResponse(content, headers=headers)

    async def reload(self, request: Request) -> Response:
        """Load, check, switch; or whatever the fault says."""
        path = Path((await request.json())["model_path"])
        if self.busy:
            return JSONResponse({"detail": "busy", "code": "conflict", "stage": "queue"}, 409)
        self.busy = True
        try:
            return await self._reload(path)
        finally:
            self.busy = False

    async def _reload(self, path: Path) -> Response:
        old = self.model
        if self.fault == "drops the old model first":
            self.model = None
        problem = self._find_problem(path)
        await asyncio.sleep(0.01 if problem else LOAD_S)
        self.model = old
        if problem and self.fault == "answers 200 on failure":
            return JSONResponse({"ok": True, "generation": self.generation})
        if problem and self.fault == "counts a refusal as a switch":
            self.generation += 1
        if problem:
            detail = {"detail": problem, "code": "model_refused", "stage": "read"}
            return JSONResponse(detail, 422)
        if path != self.first:
            self.away = path
        elif self.fault == "never goes home" and self.generation >= 5:
            path = self.away
        self._switch(path)
        return JSONResponse({"ok": True, "generation": self.generation})

    def _find_problem(self, path: Path) -> str | None:
        if path.suffix != ".onnx" or not path.is_file():
            return "no such model"
        try:
            find_model_files(path)
        except ModelError as error:
            return str(error)
        # A fake looks at no weights; it knows the bad ones by the folder that the drill made.
        bad = path.parent.name.startswith(".drill.") and self.fault != "serves a bad model"
        return "not a good model" if bad else None

    def _switch(self, path: Path) -> None:
        self.before = self.digest
        self.model, self.digest = path, find_model_files(path).digest()
        self.generation += 1


def main(port_file: str, model: str, fault: str) -> None:
    """Serve on a free port, whose number is written to `port_file`."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen(512)
    server = uvicorn.Server(
        uvicorn.Config(FakeService(Path(model), fault).app(), log_level="warning")
    )
    Path(port_file).write_text(str(bound.getsockname()[1]))
    server.run(sockets=[bound])


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    main(*arguments)
