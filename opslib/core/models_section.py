"""The configuration's `models:` section: the kinds of models that one service serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from opslib.core.sections import PositiveInt, Section


def _check_kinds(kinds: dict[str, KindSection]) -> dict[str, KindSection]:
    """Refuse kinds that could not be told apart by what is asked of them."""
    uses: dict[str, Callable[[str, KindSection], object]] = {
        "pattern": lambda name, kind: kind.pattern or name,
        "link": lambda name, kind: kind.link or name,
        "pin": lambda name, kind: (kind.pin or name, kind.pin_file),
        "request_field": lambda name, kind: kind.request_field or name,
        "path_field": lambda name, kind: kind.path_field or name,
    }
    for key, use in uses.items():
        seen: dict[object, str] = {}
        for name, kind in kinds.items():
            other = seen.setdefault(use(name, kind), name)
            if other != name:
                raise ValueError(f"{other} and {name} have the same {key}")
    return kinds


class KindSection(Section):
    """One kind of models; what is not given follows from its name, such as `detection`."""

    pattern: Annotated[str, Field(pattern=r"^[^/]+\.onnx$")] | None = None
    link: Annotated[str, Field(pattern=r"^[^/*?\[]+\.onnx$")] | None = None
    pin: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
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
