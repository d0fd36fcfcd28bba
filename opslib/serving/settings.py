"""Everything the service was told: the configuration, `.env` and the checked key, in one place."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from opslib.core.config import Config
from opslib.core.environment import ServiceEnvironment, load_service_environment
from opslib.core.kinds import Kind, pick_classifier
from opslib.serving.keys import check_key

MIB = 1 << 20


@dataclass(frozen=True)
class ServiceSettings:
    """The configuration, environment and pinned model of one service, as they were when it began;
    the key is not shown in `repr`."""

    config: Config
    environment: ServiceEnvironment
    kind: Kind
    env_file: Path
    pinned: Path | None
    api_key: bytes = field(repr=False)

    @property
    def model_dirs(self) -> tuple[Path, ...]:
        """The folders from which a model may be switched in, links resolved."""
        config = self.config
        more = map(config.resolve, config.reload.model_dirs)
        folders = (config.export_dir, config.restore_dir, *more)
        return tuple(Path(os.path.realpath(folder)) for folder in folders)


def load_settings(config: Config, env_file: Path | None = None) -> ServiceSettings:
    """Return the settings of a service on `config`; a `ConfigError` where a variable is impossible
    or the key missing or weak, a `ParameterError` where several kinds are classifiers: our service
    serves one."""
    environment = load_service_environment(config, env_file)
    secret = environment.api_key.get_secret_value() if environment.api_key else None
    kind = pick_classifier(config)
    source = kind.pin_source(env_file).absolute()
    pinned = next(iter(kind.pins(env_file)), None)
    return ServiceSettings(config, environment, kind, source, pinned, check_key(secret))
