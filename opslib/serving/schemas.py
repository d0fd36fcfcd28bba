"""The answers of the service, field by field, as its OpenAPI description shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """`GET /version`: exactly which model answers now; `degraded` is there only where it is."""

    app: str
    git_sha: str
    model_path: str
    model_sha256: str
    version_tag: str
    num_classes: int | None
    exported_at: str | None
    generation: int
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


class PredictAnswer(Answer):
    """`POST /predict`."""

    class_id: int
    class_name: str | None
    confidence: float
    engine: str
    time_ms: Times
    version_tag: str
    generation: int


class BatchAnswer(Answer):
    """`POST /batch`: results in the order of the images."""

    results: list[Prediction]
    count: int
    time_ms: Times
    version_tag: str
    generation: int


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
