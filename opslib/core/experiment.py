"""Whether the experiment is there: nothing but the demo makes one."""

from __future__ import annotations

from opslib.core.config import Config
from opslib.core.errors import ConfigError


def check_experiment(config: Config) -> None:
    """Refuse an experiment that is not there: it is not made, for its disk may not be mounted.

    Raises:
        ConfigError: its folder is missing.
    """
    if not config.exp_dir.is_dir():
        raise ConfigError(f"paths.exp_dir: {config.exp_dir}: no such folder; is its disk mounted?")
