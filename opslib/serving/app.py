"""The service as an ASGI application: routes over the parts that do the work."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from pydantic import AliasChoices, Field, ValidationError, create_model
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from opslib import __version__
from opslib.serving.failures import RefusalError, answer_crash, answer_refusal, json_response
from opslib.serving.gate import GENERATION, Endpoint, Gate, LoggedCors, Trace
from opslib.serving.logs import EVENT_LOGGER, PERIOD_S, sum_up_events
from opslib.serving.reload import StageError, since_ms
from opslib.serving.schemas import (
    Answer,
    BatchAnswer,
    Degraded,
    Health,
    PredictAnswer,
    ReloadAnswer,
    ReloadRequest,
    Version,
    describe,
)
from opslib.serving.service import Service
from opslib.serving.settings import MIB
from opslib.serving.together import Classified
from opslib.serving.uploads import UploadLimits, read_body

APP_NAME = "pillsnap"
_JSON_LIMIT_BYTES = 64 * 1024

_log = logging.getLogger(f"{EVENT_LOGGER}.app")


def create_app(service: Service) -> ASGIApp:
    """Return the application that serves `service`, its layers in order from the outside:
    trace, cross-origin rules, gate, routes."""

    async def sum_up_logs() -> None:
        while True:  # what was not logged one by one
            await asyncio.sleep(PERIOD_S)
            try:
                service.access_log.sum_up()
                sum_up_events()
            except Exception:
                _log.exception("what was not logged one by one could not be summed up")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.standing.watch()
        counting = asyncio.create_task(sum_up_logs())
        yield
        counting.cancel()
        sum_up_events()
        service.close()

    app = FastAPI(title=APP_NAME, version=__version__, lifespan=lifespan, redoc_url=None)
    app.add_exception_handler(HTTPException, answer_refusal)
    app.add_exception_handler(Exception, _answer_crash)
    inference = _add_routes(app, service)
    told = service.settings.environment
    gate = Gate(app, inference, service.settings.api_key, told.rate_limit_per_min)
    cors = LoggedCors(gate, told.cors_allow_origins)
    return Trace(cors, lambda: service.generations.current, service.access_log)


async def _answer_crash(request: Request, _error: Exception) -> Response:
    return answer_crash(request.scope["state"]["request_id"])


def _add_routes(app: FastAPI, service: Service) -> dict[str, Endpoint]:
    """Add the routes to `app` and return those that the gate answers itself."""
    section, fields = service.settings.config.uploads, service.settings.kind.client
    one_bytes = service.settings.environment.max_upload_mb * MIB
    single = UploadLimits(1, one_bytes, one_bytes)
    limits = UploadLimits(section.batch_max_images, one_bytes, section.batch_max_mb * MIB)

    async def health() -> Response:
        current, shortfall = service.generations.current, service.standing.shortfall
        facts = current.model.engine.facts if current else None
        told: dict[str, Any] = {}
        if shortfall:  # what anybody may know of it: tags, no paths
            told["wanted"] = shortfall.wanted.version_tag if shortfall.wanted else None
            told["served"] = current.model.candidate.version_tag if current else None
            told["reason"] = shortfall.reason
        named: Any = current is not None
        for name in reversed(fields.loaded_field.split(".")):
            named = {name: named}
        return _answer(
            Health(
                status="degraded" if shortfall else "ok",
                device="cuda" if facts and facts.provider != "CPU" else "cpu",
                engine="torch" if facts and facts.engine == "torch" else "onnx",
                model_loaded=current is not None,
                uptime_sec=round(time.monotonic() - service.started, 3),
                **told,
            ),
            named,
        )

    async def version() -> Response:
        found = _describe_version(service)
        named = {fields.path_field: found.model_path, fields.digest_field: found.model_sha256}
        return _answer(found, named)

    async def predict(request: Request) -> Response:
        done = await service.classify(request, "image", single)
        engine = done.generation.model.engine.facts.engine
        return _answer_fast(request, done, {**done.predictions[0], "engine": engine})

    async def batch(request: Request) -> Response:
        done = await service.classify(request, "images", limits)
        content = {"results": done.predictions, "count": len(done.predictions)}
        return _answer_fast(request, done, content)

    async def reload(request: Request) -> Response:
        return _answer(await _reload(request, service))

    def add(path: str, endpoint: Callable[..., Any], model: type[Answer], method: str) -> None:
        told = describe(path, section.batch_max_images)
        app.add_api_route(path, endpoint, methods=[method], response_model=model, **told)
        if method == "GET":
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    add("/health", health, Health, "GET")
    add("/version", version, Version, "GET")
    add("/predict", predict, PredictAnswer, "POST")
    add("/batch", batch, BatchAnswer, "POST")
    add("/reload", reload, ReloadAnswer, "POST")
    return {"/predict": predict, "/batch": batch}


def _answer(content: Answer, named: Mapping[str, Any] | None = None) -> Response:
    """Answer with `content`, and with what of it has other names in the configuration."""
    said = content.model_dump(mode="json", exclude_unset=True)
    return json_response({**said, **(named or {})})


def _answer_fast(request: Request, done: Classified, content: dict[str, Any]) -> Response:
    """Answer with `PredictAnswer` or `BatchAnswer`, as a dict: models cost more than a parse."""
    total = since_ms(request.scope["state"]["started"])
    times = {"preprocess": done.preprocess_ms, "inference": done.inference_ms, "total": total}
    content["time_ms"] = times
    content["version_tag"] = done.generation.model.candidate.version_tag
    content["generation"] = done.generation.number
    return json_response(content)


def _describe_version(service: Service) -> Version:
    shortfall, told = service.standing.shortfall, dict[str, Any]()
    if shortfall:
        wanted = shortfall.wanted
        told["degraded"] = Degraded(
            wanted_path=str(wanted.path) if wanted and wanted.path else None,
            wanted_tag=wanted.version_tag if wanted else None,
            why=wanted.why if wanted else None,
            reason=shortfall.reason,
        )
    try:
        generation = service.generations.require()
    except RefusalError as error:
        error.extra.update({name: one.model_dump() for name, one in told.items()})
        raise
    model, facts = generation.model, generation.model.engine.facts
    card, spinning = model.candidate.card, facts.options.get("allow_spinning")
    if model.unbatched:
        told["unbatched"] = model.unbatched
    return Version(
        app=f"{APP_NAME} {__version__}",
        git_sha=service.git_sha,
        model_path=str(model.path),
        model_sha256=model.sha256,
        version_tag=model.candidate.version_tag,
        num_classes=model.contract.num_classes,
        exported_at=card.exported_at_utc if card else None,
        generation=generation.number,
        workers=service.workers,
        intra_op_num_threads=facts.threads,
        allow_spinning=None if spinning is None else spinning == "true",
        max_batch=model.together,
        **told,
    )


@cache
def _reload_request(name: str) -> type[ReloadRequest]:
    """The request with its field under another name, too."""
    names = AliasChoices("model_path", name)
    field = Field(min_length=1, max_length=1024, validation_alias=names)
    return create_model("ReloadRequest", __base__=ReloadRequest, model_path=(str, field))


async def _reload(request: Request, service: Service) -> ReloadAnswer:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusalError(415, "expected application/json with model_path")
    body = b"".join([part async for part in read_body(request, _JSON_LIMIT_BYTES)])
    try:
        expected = _reload_request(service.settings.kind.client.request_field)
        wanted = expected.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        malformed = first["type"] == "json_invalid"
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise RefusalError(400 if malformed else 422, f"{where}: {first['msg']}") from error
    if service.reloader.busy:
        problem = "another reload is under way; wait for it and look at /version"
        extra = {"stage": "queue", "hint": "try again in a few seconds"}
        later = {"Retry-After": "2"}
        raise RefusalError(409, problem, code="reload_running", extra=extra, headers=later)
    try:
        switch = await service.reloader.reload(wanted.model_path)
    except StageError as error:
        status = 400 if error.stage == "path" else 422
        extra = {"stage": error.stage, "hint": error.hint}
        raise RefusalError(status, str(error), code="model_refused", extra=extra) from error
    request.scope["state"][GENERATION] = switch.generation
    model = switch.generation.model
    return ReloadAnswer(
        ok=True,
        engine=model.engine.facts.engine,
        version_tag=model.candidate.version_tag,
        model_path=str(model.path),
        generation=switch.generation.number,
        model_sha256=model.sha256,
        verified=model.candidate.verified,
        resident=switch.resident,
        stages_ms=switch.stages_ms,
        warning=switch.warning,
    )
