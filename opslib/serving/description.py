"""The OpenAPI description: request bodies, error answers, headers and the key, said in full."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from opslib.serving.keys import HEADER
from opslib.serving.schemas import Refusal, ReloadRequest
from opslib.serving.settings import ServiceSettings

_SCHEME = "ApiKey"
_MEANING = {
    400: "malformed request, or a model path that is not allowed",
    401: "key missing or wrong",
    409: "another reload is under way",
    413: "too many bytes, pixels or images",
    415: "a type that is not accepted",
    422: "an image or model that cannot be used",
    429: "too many requests a minute",
    500: "internal error",
    503: "no model is loaded, or the queue is full",
}
_ERRORS = {
    ("/health", "get"): (500,),
    ("/version", "get"): (401, 429, 500, 503),
    ("/predict", "post"): (400, 401, 413, 415, 422, 429, 500, 503),
    ("/batch", "post"): (400, 401, 413, 415, 422, 429, 500, 503),
    ("/reload", "post"): (400, 401, 409, 413, 415, 422, 429, 500),
}
_SUMMARIES = {
    "/health": "Whether the service is up and serves the model that it should; public.",
    "/version": "Which model answers now.",
    "/predict": "Classify one image.",
    "/batch": "Classify several images.",
    "/reload": "Switch to another model without a gap.",
}


def describe(app: FastAPI, settings: ServiceSettings) -> None:
    """Give `app` its OpenAPI description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI, settings: ServiceSettings) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = schema.setdefault("components", {})
    parts["securitySchemes"] = {_SCHEME: {"type": "apiKey", "in": "header", "name": HEADER}}
    for model in (Refusal, ReloadRequest):
        parts["schemas"][model.__name__] = model.model_json_schema()
    bodies = {
        "/predict": _form("image", {"type": "string", "format": "binary"}),
        "/batch": _form(
            "images",
            {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "minItems": 1,
                "maxItems": settings.config.uploads.batch_max_images,
            },
        ),
        "/reload": {"application/json": {"schema": _reference(ReloadRequest)}},
    }
    for (path, method), errors in _ERRORS.items():
        operation = schema["paths"][path][method]
        operation["summary"] = _SUMMARIES[path]
        operation["operationId"] = path.strip("/")
        if path != "/health":
            operation["security"] = [{_SCHEME: []}]
        if path in bodies:
            operation["requestBody"] = {"required": True, "content": bodies[path]}
        for status in errors:
            operation["responses"][str(status)] = {
                "description": _MEANING[status],
                "content": {"application/json": {"schema": _reference(Refusal)}},
            }
    return schema


def _form(name: str, content: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [name], "properties": {name: content}}
    return {"multipart/form-data": {"schema": schema}}


def _reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
