"""What FastAPI is told of each route for the OpenAPI description: summary, body, errors, key."""

from __future__ import annotations

from typing import Any

from fastapi import Security
from fastapi.security import APIKeyHeader

from opslib.serving.keys import HEADER
from opslib.serving.schemas import Refusal, ReloadRequest

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
_CLASSIFYING = (400, 401, 413, 415, 422, 429, 500, 503)
_ROUTES = {
    "/health": ("Whether the service is up and serves the model that it should; public.", (500,)),
    "/version": ("Which model answers now.", (401, 429, 500, 503)),
    "/predict": ("Classify one image.", _CLASSIFYING),
    "/batch": ("Classify several images.", _CLASSIFYING),
    "/reload": (
        "Switch to another model without a gap.",
        (400, 401, 409, 413, 415, 422, 429, 500),
    ),
}
_KEY = Security(APIKeyHeader(name=HEADER, scheme_name="ApiKey", auto_error=False))
_FILE = {"type": "string", "format": "binary"}


def describe(path: str, most_images: int) -> dict[str, Any]:
    """Return the description of a route as `add_api_route` takes it; the gate checks the key.

    Args:
        most_images: how many images one `/batch` may have.
    """
    summary, errors = _ROUTES[path]
    images = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": most_images}
    bodies = {
        "/predict": _form("image", _FILE),
        "/batch": _form("images", images),
        "/reload": {"application/json": {"schema": ReloadRequest.model_json_schema()}},
    }
    body = {"requestBody": {"required": True, "content": bodies[path]}} if path in bodies else None
    return {
        "summary": summary,
        "operation_id": path.strip("/"),
        "responses": {one: {"model": Refusal, "description": _MEANING[one]} for one in errors},
        "openapi_extra": body,
        "dependencies": [] if path == "/health" else [_KEY],
    }


def _form(name: str, content: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [name], "properties": {name: content}}
    return {"multipart/form-data": {"schema": schema}}
