"""The service as an ASGI application: routes over the parts that do the work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from opslib import __version__
from opslib.core.lineage import git_sha
from opslib.inference.preprocess import load_preprocessor
from opslib.serving.access_log import AccessLog
from opslib.serving.classify import Classified, classify
from opslib.serving.cors import LoggedCors
from opslib.serving.decoding import UploadDecoder
from opslib.serving.description import describe
from opslib.serving.failures import (
    RefusalError,
    answer_crash,
    answer_http_exception,
    answer_refusal,
)
from opslib.serving.gate import Gate
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import ACCESS_LOG
from opslib.serving.reload import BUSY_CODE, Reloader, StageError
from opslib.serving.schemas import (
    Answer,
    BatchAnswer,
    Health,
    PredictAnswer,
    ReloadAnswer,
    ReloadRequest,
    Times,
    Version,
)
from opslib.serving.settings import MIB, ServiceSettings
from opslib.serving.trace import GENERATION, Trace
from opslib.serving.uploads import UploadLimits, read_body, read_uploads
from opslib.serving.work import InferenceQueue

APP_NAME = "pillsnap"
Endpoint = Callable[[Request], Awaitable[Response]]
_JSON_LIMIT_BYTES = 64 * 1024


class Service:
    """The parts of one running service, put together once.

    Args:
        settings: what it was told.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        config = settings.config
        self.settings = settings
        self.started = time.monotonic()
        self.git_sha = git_sha(config.code_root or config.root)
        secrets = (settings.api_key.decode(),)
        self.access_log = AccessLog(config.exp_dir / "logs" / ACCESS_LOG, secrets)
        self.generations = Generations(
            capacity=config.reload.resident_models,
            min_free_bytes=config.reload.resident_min_free_mb * MIB,
        )
        preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
        self.reloader = Reloader(settings, self.generations, preprocessor)
        self.queue = InferenceQueue(settings.workers, config.service.queue)
        self.decoder = UploadDecoder(
            preprocessor,
            allowed_exts=settings.environment.allowed_exts,
            max_pixels=config.uploads.max_pixels,
            max_total_pixels=config.uploads.batch_max_pixels,
        )

    def current(self) -> Generation:
        """Return the current generation.

        Raises:
            RefusalError: no model is loaded.
        """
        generation = self.generations.current
        if generation is None:
            raise RefusalError(
                503, "no model is loaded; switch one in with /reload", code="no_model"
            )
        return generation

    async def classify(self, request: Request, field: str, limits: UploadLimits) -> Classified:
        """Read, check and classify the images of a request."""
        self.queue.check()
        uploads = await read_uploads(request, field, limits)
        self.decoder.check(uploads)
        job = partial(classify, uploads, self.generations, self.decoder)
        done = await self.queue.run(job)
        request.scope["state"][GENERATION] = done.generation
        return done

    def close(self) -> None:
        """Finish what is under way and free the models."""
        self.queue.close()
        self.generations.close()
        self.access_log.close()


def create_app(service: Service) -> ASGIApp:
    """Return the application that serves `service`, its layers in order from the outside:
    trace, cross-origin rules, gate, routes."""
    settings = service.settings

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title=APP_NAME, version=__version__, lifespan=lifespan, redoc_url=None)
    app.add_exception_handler(RefusalError, answer_refusal)
    app.add_exception_handler(HTTPException, answer_http_exception)
    app.add_exception_handler(Exception, _answer_crash)
    hot = _add_routes(app, service)
    describe(app, settings)
    gate = Gate(HotRoutes(app, hot), settings.api_key, settings.environment.rate_limit_per_min)
    cors = LoggedCors(gate, settings.environment.cors_allow_origins)
    return Trace(cors, lambda: service.generations.current, service.access_log)


class HotRoutes:
    """ASGI: answers the inference routes itself and passes everything else on.

    FastAPI describes these routes too, but its machinery costs a tenth of a small model's run.
    """

    def __init__(self, app: ASGIApp, routes: dict[str, Endpoint]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        hot = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._routes.get(scope["path"]) if hot else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except RefusalError as refusal:
            response = refusal.response()
        await response(scope, receive, send)


async def _answer_crash(request: Request, _error: Exception) -> Response:
    return answer_crash(request.scope["state"]["request_id"])


def _add_routes(app: FastAPI, service: Service) -> dict[str, Endpoint]:
    """Add the routes to `app` and return those that are hot."""
    limits, single = _upload_limits(service.settings)

    async def health() -> Response:
        current = service.generations.current
        facts = current.model.engine.facts if current else None
        return _answer(
            Health(
                status="ok",
                device="cuda" if facts and facts.provider != "CPU" else "cpu",
                engine="torch" if facts and facts.engine == "torch" else "onnx",
                model_loaded=current is not None,
                uptime_sec=round(time.monotonic() - service.started, 3),
            )
        )

    async def version() -> Response:
        return _answer(_describe_version(service))

    async def predict(request: Request) -> Response:
        done = await service.classify(request, "image", single)
        only = done.predictions[0]
        return _answer(
            PredictAnswer.model_construct(
                class_id=only.class_id,
                class_name=only.class_name,
                confidence=only.confidence,
                engine=done.generation.model.engine.facts.engine,
                time_ms=_times(request, done),
                version_tag=done.generation.model.candidate.version_tag,
                generation=done.generation.number,
            )
        )

    async def batch(request: Request) -> Response:
        done = await service.classify(request, "images", limits)
        return _answer(
            BatchAnswer.model_construct(
                results=done.predictions,
                count=len(done.predictions),
                time_ms=_times(request, done),
                version_tag=done.generation.model.candidate.version_tag,
                generation=done.generation.number,
            )
        )

    async def reload(request: Request) -> Response:
        return _answer(await _reload(request, service))

    add: Callable[..., None] = app.add_api_route
    add("/health", health, methods=["GET"], response_model=Health)
    add("/version", version, methods=["GET"], response_model=Version)
    add("/predict", predict, methods=["POST"], response_model=PredictAnswer)
    add("/batch", batch, methods=["POST"], response_model=BatchAnswer)
    add("/reload", reload, methods=["POST"], response_model=ReloadAnswer)
    return {"/predict": predict, "/batch": batch}


def _upload_limits(settings: ServiceSettings) -> tuple[UploadLimits, UploadLimits]:
    section, one = settings.config.uploads, settings.upload_limit_bytes
    timeout_s = settings.config.service.body_timeout_s
    batch = UploadLimits(section.batch_max_images, one, settings.batch_limit_bytes, timeout_s)
    return batch, UploadLimits(1, one, one, timeout_s)


def _answer(content: Answer) -> Response:
    return Response(content.model_dump_json().encode(), media_type="application/json")


def _times(request: Request, done: Classified) -> Times:
    total = (time.perf_counter() - request.scope["state"]["started"]) * 1000
    return Times.model_construct(
        preprocess=done.preprocess_ms, inference=done.inference_ms, total=round(total, 3)
    )


def _describe_version(service: Service) -> Version:
    generation = service.current()
    model = generation.model
    card = model.candidate.card
    return Version(
        app=f"{APP_NAME} {__version__}",
        git_sha=service.git_sha,
        model_path=str(model.path),
        model_sha256=model.sha256,
        version_tag=model.candidate.version_tag,
        num_classes=model.contract.num_classes,
        exported_at=card.exported_at_utc if card else None,
        generation=generation.number,
    )


async def _reload(request: Request, service: Service) -> ReloadAnswer:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusalError(415, "expected application/json with model_path")
    timeout_s = service.settings.config.service.body_timeout_s
    body = b"".join([part async for part in read_body(request, _JSON_LIMIT_BYTES, timeout_s)])
    try:
        wanted = ReloadRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        malformed = first["type"] == "json_invalid"
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise RefusalError(400 if malformed else 422, f"{where}: {first['msg']}") from error
    if service.reloader.busy:
        raise RefusalError(
            409,
            "another reload is under way; wait for it and look at /version",
            code=BUSY_CODE,
            extra={"stage": "queue", "hint": "try again in a few seconds"},
            headers={"Retry-After": "2"},
        )
    try:
        switch = await service.reloader.reload(wanted.model_path)
    except StageError as error:
        raise RefusalError(
            400 if error.stage == "path" else 422,
            str(error),
            code="model_refused",
            extra={"stage": error.stage, "hint": error.hint},
        ) from error
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
