"""Python, numpy and pandas values as plain JSON, with explicit nulls where a number is missing."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from opslib.core.errors import InputError


def to_json(value: Any, name: str) -> Any:
    """Return `value` as JSON types; NaN, infinity, NaT and NA become None. A frame becomes
    `{"columns": [...], "rows": [[...]]}`, a time becomes ISO 8601 text, an array a list. `name`:
    what the value is called, for the error's text. Raises InputError: a value of this type cannot
    be kept."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return to_json(value.value, name)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date):
        if value != value:  # NaT, which calls itself a datetime
            return None
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = value.astimezone(UTC)
        return value.isoformat()
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, BaseModel):
        return to_json(value.model_dump(), name)
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, list | tuple):
        return [to_json(item, name) for item in value]
    return _foreign(value, name)


def _foreign(value: Any, name: str) -> Any:
    """Numpy and pandas values, told by the module of their type so that neither is imported."""
    library = type(value).__module__.partition(".")[0]
    kind = type(value).__name__
    if kind == "NAType":
        return None
    if library == "numpy":
        import numpy as np

        if isinstance(value, np.datetime64):
            return None if np.isnat(value) else str(value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "M":
            return [to_json(item, name) for item in value]
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufOUS":
            return to_json(value.tolist(), name)
    if library == "pandas" and kind == "DataFrame":
        rows = [[to_json(item, name) for item in row] for row in value.to_numpy(dtype=object)]
        return {"columns": [str(column) for column in value.columns], "rows": rows}
    if library == "pandas" and hasattr(value, "tolist"):
        return to_json(value.tolist(), name)
    raise InputError(
        f"{name}: a {type(value).__module__}.{kind} cannot be kept; expected numbers, text, "
        "times, arrays, frames or lists and dicts of them"
    )
