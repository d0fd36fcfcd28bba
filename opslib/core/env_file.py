"""The variables of a `.env`: read here, changed in `serving/dotenv.py`."""

from pathlib import Path

from dotenv import dotenv_values

from opslib.core.errors import ConfigError

ENV_NAME = ".env"


def read_env_file(env_file: Path) -> dict[str, str]:
    """Return the variables of a file, also those that say nothing; none where it is not there.
    Raises `ConfigError` where it is no file, or cannot be read."""
    try:
        if env_file.is_dir():  # a virtual environment may be called .env
            return {}
        if env_file.exists() and not env_file.is_file():  # a pipe would wait for its writer
            raise ConfigError(f"{env_file}: is no regular file; expected one with variables")
        written = dotenv_values(env_file)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{env_file}: cannot be read: not UTF-8 text; save it as UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{env_file}: cannot be read: {error}") from error
    return {name: value for name, value in written.items() if value is not None}
