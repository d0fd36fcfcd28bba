"""Which files of the logs' folder maintenance looks after: by their names, as configured."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from opslib.core.config import Config

TUNNEL_LOG = "cloudflared.log"
_ROTATED = re.compile(r"(.+)\.\d{8}-\d{6}(-\d+)?")


def tunnel_log_path(config: Config) -> Path:
    """Return the log that `pillops rotate` rotates: `rotate.log`, else the experiment's own."""
    given = config.rotate.log
    return config.resolve(given) if given else config.logs_dir / TUNNEL_LOG


def is_log(config: Config, name: str) -> bool:
    """Return whether a file of this name in `logs/` is one of maintenance's logs; that of
    `pillops rotate` with its archives is none."""
    if name.startswith(".") or _is_of_tunnel(config, name):
        return False
    return any(fnmatchcase(name, pattern) for pattern in config.maintenance.log_patterns)


def _is_of_tunnel(config: Config, name: str) -> bool:
    tunnel = tunnel_log_path(config)
    if name != tunnel.name and not name.startswith(f"{tunnel.name}."):
        return False
    return tunnel.parent.resolve() == config.logs_dir.resolve()


def is_rotated(config: Config, name: str) -> bool:
    """Return whether a file of this name is a log that was renamed and is still to be
    compressed."""
    found = _ROTATED.fullmatch(name)
    return found is not None and is_log(config, found[1])
