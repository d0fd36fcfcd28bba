"""The answers of the service, field by field, and what OpenAPI says of each route."""

from typing import Any, Literal

from fastapi import Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ConfigDict, Field

from opslib.serving.keys import HEADER
from opslib.serving.loaded import Unbatched
from opslib.serving.standing import Reason


class Answer(BaseModel):
    """A frozen answer; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Health(Answer):
    """`GET /health`, public: 200 as long as the service answers.

    `degraded` means that another model is served than should be, or none; then `wanted` and
    `served` are their tags and `reason` says why. These three are there only then.
    """

    status: Literal["ok", "degraded"]
    device: Literal["cuda", "cpu"]
    engine: Literal["onnx", "torch"]
    model_loaded: bool
    uptime_sec: float
    wanted: str | None = None
    served: str | None = None
    reason: Reason | None = None


class Degraded(Answer):
    """Which model should be served, where that is known, who says so, and why it is not."""

    wanted_path: str | None
    wanted_tag: str | None
    why: str | None
    reason: Reason


class Version(Answer):
    """`GET /version`: exactly which model answers now, and how; `degraded` is there only where it
    is.

    `workers` requests are run at a time, each by `intra_op_num_threads`, which wait busily where
    `allow_spinning` says so (Torch: not said). `max_batch` is how many images of requests that wait
    one run answers; `unbatched`, there only where each request is run by itself, says why.
    """

    app: str
    git_sha: str
    model_path: str
    model_sha256: str
    version_tag: str
    num_classes: int | None
    exported_at: str | None
    generation: int
    workers: int
    intra_op_num_threads: int
    allow_spinning: bool | None
    max_batch: int
    unbatched: Unbatched | None = None
    degraded: Degraded | None = None


class Times(Answer):
    """Milliseconds: decoding and scaling, the network, and everything from arrival to answer."""

    preprocess: float
    inference: float
    total: float


class Prediction(Answer):
    """The most probable class of one image."""

    class_id: int
    class_name: str | None
    confidence: float


class _Served(Answer):
    """What an answer says of the model that gave it, and how long it took."""

    time_ms: Times
    version_tag: str
    generation: int


class PredictAnswer(Prediction, _Served):
    """`POST /predict`."""

    engine: str


class BatchAnswer(_Served):
    """`POST /batch`: results in the order of the images."""

    results: list[Prediction]
    count: int


class ReloadRequest(Answer):
    """`POST /reload`: a model inside the allowed folders."""

    model_path: str = Field(min_length=1, max_length=1024)


class ReloadAnswer(Answer):
    """A finished switch; `stages_ms` says what each stage took."""

    ok: Literal[True]
    engine: str
    version_tag: str
    model_path: str
    generation: int
    model_sha256: str
    verified: bool
    resident: bool
    stages_ms: dict[str, float]
    warning: str | None = None


class Refusal(BaseModel):
    """Any error; a refused model also has its stage and a hint."""

    model_config = ConfigDict(extra="allow")

    detail: str
    code: str
    stage: str | None = None
    hint: str | None = None


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
    """Return the description of a route as `add_api_route` takes it, with `most_images` for one
    `/batch`; the gate checks the key."""
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
