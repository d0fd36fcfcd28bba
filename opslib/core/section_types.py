"""What a section of the configuration is, and the types of its keys."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from opslib.core.errors import ParameterError
from opslib.core.files import expand_user
from opslib.core.secrets import REFERENCE_PREFIX
from opslib.core.store_address import check_store_url, is_address


def split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _check_reference(value: Any) -> Any:
    """Return a reference `env:NAME`; whatever else it is may be a secret and is not repeated."""
    if value is None or (isinstance(value, str) and _REFERENCE.fullmatch(value)):
        return value
    wanted = "expected a reference, env:NAME, to a variable of .env that holds the address"
    raise PydanticCustomError(UNSHOWN_ERROR, wanted)


# The type of an error whose input may be a secret: it is not repeated.
UNSHOWN_ERROR = "unshown"
_REFERENCE = re.compile(re.escape(REFERENCE_PREFIX) + r"[A-Za-z_][A-Za-z0-9_]*")
Reference = Annotated[str | None, BeforeValidator(_check_reference)]
PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(split_commas)]
BatchSizes = Annotated[tuple[PositiveInt, ...], BeforeValidator(split_commas), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_commas), Field(min_length=1)]
ImportString = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Provider = Annotated[
    Literal["CUDA", "CPU", "TENSORRT"], BeforeValidator(lambda name: str(name).strip().upper())
]
Providers = Annotated[tuple[Provider, ...], BeforeValidator(split_commas), Field(min_length=1)]


def _check_file_pattern(value: str) -> str:
    """Return a file's name, which may hold `*`, `?` and `[…]`; not a path, and not hidden."""
    if not value or "/" in value or "**" in value or value.startswith("."):
        raise ValueError("expected a file name, which may hold * and ?, such as api.err")
    return value


FilePattern = Annotated[str, AfterValidator(_check_file_pattern)]


def _check_store(value: Any) -> Any:
    """Return the address of a store; one that is wrong may hold credentials and is not repeated."""
    if value is None:
        return None
    try:
        return check_store_url(value if isinstance(value, str) else "")
    except ParameterError as error:
        why = {"why": str(error).removeprefix(": ")}
        raise PydanticCustomError(UNSHOWN_ERROR, "{why}", why) from None


def _check_place(value: Any) -> Any:
    """Return the address of a store as text, and a folder as a path, which a variable may move."""
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a folder or the address of a store")
    return _check_store(value) if is_address(value) else Path(value)


StoreUrl = Annotated[str | None, BeforeValidator(_check_store)]
Place = Annotated[Path | str | None, BeforeValidator(_check_place)]


def _list_types(annotation: Any) -> set[Any]:
    """Return a type and all that it is made of."""
    return {annotation}.union(*map(_list_types, get_args(annotation)))


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """To pydantic true is 1, and to YAML `yes` is true."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = set() if get_origin(annotation) is dict else _list_types(annotation)
        if kinds & {int, float} and bool not in kinds:
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, bool):
                    raise ValueError("expected a number, which true and false are not")
        return value

    @field_validator("*")
    @classmethod
    def _refuse_impossible(cls, value: Any) -> Any:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int) and abs(one) >= 1 << 63:
                raise ValueError("expected a whole number of at most 64 bits")
            if isinstance(one, Path):
                expand_user(one)
        return value
