"""What the service reads from `.env`: the key and the upload policy; `core/kinds.py` reads pins."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from opslib.core.config import Config
from opslib.core.config_edit import show_value
from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.errors import ConfigError
from opslib.core.section_types import Names


class ServiceEnvironment(BaseSettings):
    """The service's own variables, the environment over `.env`; secrets are masked in `repr`.

    Units: `max_upload_mb` in MiB, `rate_limit_per_min` in requests for each key.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, enable_decoding=False
    )

    api_key: SecretStr | None = None
    cors_allow_origins: Names = (
        "http://localhost:3000",
        "https://pillsnap.co.kr",
        "https://api.pillsnap.co.kr",
    )
    max_upload_mb: Annotated[int, Field(gt=0)] = 20
    allowed_exts: Names = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    rate_limit_per_min: Annotated[int, Field(gt=0)] = 60
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)
    ] = "INFO"


def read_variable(env_file: Path, name: str) -> Iterator[str]:
    """Yield what a variable says in the process environment and in `env_file`, where it says
    something; the first one counts. Raises `ConfigError` where the file cannot be read."""
    for variables in (os.environ, read_env_file(env_file)):
        yield from find_variable(variables, name)


def find_variable(variables: Mapping[str, str], name: str) -> Iterator[str]:
    """Yield what a variable says, whatever the case of its name, where it says something."""
    folded = name.casefold()
    return (value for key, value in variables.items() if key.casefold() == folded and value)


def load_service_environment(config: Config, env_file: Path | None = None) -> ServiceEnvironment:
    """Return the service's variables: the process environment over `env_file`, which is `.env`
    beside the configuration unless named. Raises `ConfigError` where a value is impossible; the
    message names the variable, never a secret."""
    if env_file is not None and not env_file.is_file():
        raise ConfigError(f"--env-file: {env_file}: no such file; copy .env.example to it")
    source = env_file or config.root / ENV_NAME
    try:
        return ServiceEnvironment(_env_file=source)  # type: ignore[call-arg]
    except UnicodeDecodeError:
        read_env_file(source)  # refuses it by name
        raise
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        shown = "a value" if name == "API_KEY" else show_value(first["input"])
        raise ConfigError(f"{name}: got {shown}: {first['msg'].lower()}") from error
