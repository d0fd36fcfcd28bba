"""Records: frozen, versioned results that are kept as JSON beside the report that proves them."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from opslib.core.errors import InputError, StorageError
from opslib.core.files import overwrite, write_text_atomic
from opslib.core.formatting import map_texts, spell_out, stamp

_NUMBERS = re.compile(r"\[\n\s+((?:[-+.\deE]+|null)(?:,\n\s+(?:[-+.\deE]+|null))*)\n\s+\]")


class Part(BaseModel):
    """A frozen piece of a record; unknown fields are refused, NaN and infinity become null."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Record(Part):
    """A frozen result with a schema name and version, written as one JSON object.

    Subclasses set `schema_name` and raise `schema_version` whenever a reader must notice.
    """

    schema_name: ClassVar[str] = "record"
    schema_version: ClassVar[int] = 1

    @classmethod
    def schema_id(cls) -> str:
        """Return the text that marks this record's JSON, such as `bench/1`."""
        return f"{cls.schema_name}/{cls.schema_version}"

    @model_serializer(mode="wrap")
    def _mark(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": self.schema_id(), **handler(self)}

    @model_validator(mode="before")
    @classmethod
    def _check_mark(cls, data: Any) -> Any:
        if isinstance(data, dict) and "schema" in data:
            data = dict(data)
            found = data.pop("schema")
            if found != cls.schema_id():
                raise ValueError(f"schema is {found!r}, expected {cls.schema_id()!r}")
        return data

    def to_json(self) -> str:
        """Return the record as indented JSON text, a list of numbers on one line."""
        try:
            text = self.model_dump_json(indent=2)
        except PydanticSerializationError:  # a file's name that is no UTF-8, spelt out here
            plain = map_texts(self.model_dump(), spell_out)
            text = type(self).model_validate(plain).model_dump_json(indent=2)
        return _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text) + "\n"

    def slim(self) -> Self:
        """Return the record without what a citation can do without; raw values by default stay."""
        return self

    def write(self, path: Path) -> Path:
        """Write the record to `path` in one step and return the path."""
        write_text_atomic(path, self.to_json())
        return path

    def write_dated(self, folder: Path, name: str) -> Path:
        """Write the record to `folder` as `{name}_<UTC>.json`, with a copy beside it that is the
        newest as `{name}.json`; return the former."""
        written = self.write(folder / f"{name}_{stamp()}.json")
        self.write(folder / f"{name}.json")
        return written

    def keep(self, path: Path) -> str:
        """Write the record to `path`, over the one before where a full disk has no room beside it;
        return '' or why it is not kept."""
        try:
            self.write(path)
        except StorageError as error:
            try:
                overwrite(path, self.to_json().encode())
            except StorageError:
                return str(error)
        return ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record kept at `path`. Raises `InputError` where the file is missing, not
        JSON, of another schema or version."""
        if path.is_fifo():
            raise InputError(f"{path}: cannot read a {cls.schema_name} record: it is a pipe")
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot read a {cls.schema_name} record: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"{path}: not a {cls.schema_id()} record: {where + ': ' if where else ''}"
                f"{first['msg']}"
            ) from error


def read_json(path: Path) -> Any:
    """Return the parsed JSON of `path`. Raises `InputError` where the file is missing or is not
    JSON."""
    if path.is_fifo():  # reading it would wait for a writer, perhaps for ever
        raise InputError(f"{path}: cannot be read: it is a pipe")
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
