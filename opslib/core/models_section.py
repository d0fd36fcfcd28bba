"""The configuration's `models:` section: the kinds of models that one service serves."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import permutations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from opslib.core.secrets import is_secret_name
from opslib.core.section_types import PositiveInt, Section


def fill_in(name: str, given: KindSection) -> KindSection:
    """Return a kind with every name that follows from its own."""
    names = {
        "pattern": f"{name}-*.onnx",
        "link": f"latest_{name}.onnx",
        "pin": f"{name.upper()}_MODEL_PATH",
        "request_field": f"{name}_path",
        "path_field": f"{name}_model_path",
        "digest_field": f"{name}_model_sha256",
        "loaded_field": f"models_loaded.{name}",
    }
    return given.model_copy(
        update={key: default for key, default in names.items() if getattr(given, key) is None}
    )


def _check_kinds(kinds: dict[str, KindSection]) -> dict[str, KindSection]:
    """Refuse kinds that could not be told apart by what is asked of them."""
    whole = {name: fill_in(name, kind) for name, kind in kinds.items()}
    for first, second in permutations(whole, 2):
        one, other = whole[first], whole[second]
        for key in ("link", "request_field", "path_field", "digest_field"):
            if getattr(one, key) == getattr(other, key):
                raise ValueError(f"{first} and {second} have the same {key}, {getattr(one, key)}")
        if (str(one.pin).casefold(), one.pin_file) == (str(other.pin).casefold(), other.pin_file):
            raise ValueError(f"{first} and {second} have the same pin, {one.pin}")
        example = str(one.pattern).replace("*", "x").replace("?", "x")
        if one.pattern == other.pattern or fnmatchcase(example, str(other.pattern)):
            raise ValueError(f"a {first} model ({one.pattern}) would be a {second} model, too")
    return kinds


def _check_pin(value: str) -> str:
    if is_secret_name(value) or value.upper() in _SERVICE_NAMES:
        raise ValueError("expected a variable that pins a model, such as DETECTION_MODEL_PATH")
    return value


# What else a service reads from the same file: a switch that is made to last must not replace it.
_SERVICE_NAMES = frozenset(
    {"CORS_ALLOW_ORIGINS", "MAX_UPLOAD_MB", "ALLOWED_EXTS", "RATE_LIMIT_PER_MIN", "LOG_LEVEL"}
)
Pin = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_check_pin)]


class KindSection(Section):
    """One kind of models; what is not given follows from its name, such as `detection`."""

    pattern: Annotated[str, Field(pattern=r"^[^/]+\.onnx$")] | None = None
    link: Annotated[str, Field(pattern=r"^[^/*?\[]+\.onnx$")] | None = None
    pin: Pin | None = None
    pin_file: Path | None = None
    request_field: Annotated[str, Field(min_length=1)] | None = None
    path_field: Annotated[str, Field(min_length=1)] | None = None
    digest_field: Annotated[str, Field(min_length=1)] | None = None
    loaded_field: Annotated[str, Field(min_length=1)] | None = None
    contract: Literal["classifier", "any"] = "classifier"
    keep: PositiveInt | None = None


Kinds = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], KindSection],
    AfterValidator(_check_kinds),
]
