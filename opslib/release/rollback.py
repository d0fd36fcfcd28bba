"""Back to the last good model: the one served before, else the newest export before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError
from opslib.core.models import find_model_files
from opslib.core.plans import Action, Plan
from opslib.core.served import read_served_state
from opslib.serving.client import LiveVersion


@dataclass(frozen=True)
class StableModel:
    """The model to go back to, and why this one."""

    path: Path
    sha256: str
    why: str


def find_stable(config: Config, live: LiveVersion | None) -> StableModel:
    """Return the model to go back to from `live`.

    Raises:
        ModelError: there is none; the message says where was looked.
    """
    live_digest = live.sha256 if live else None
    live_path = Path(live.model_path).resolve() if live and live.model_path else None
    for path, sha256, why in _list_candidates(config, live_path):
        try:
            digest = find_model_files(path).digest()
        except (ModelError, OSError):
            continue
        if sha256 is not None and digest != sha256:
            continue
        if digest == live_digest or (live_digest is None and path.resolve() == live_path):
            continue
        return StableModel(path.resolve(), digest, why)
    raise ModelError(
        f"{config.export_dir}: no other usable model to go back to; restore one from a release, "
        "then `pillops reload --path MODEL`"
    )


def plan_rollback(stable: StableModel, run: Callable[[], None]) -> Plan:
    """Return the plan of a rollback; `run` does it."""
    action = Action("switch to", str(stable.path), stable.why, run)
    return Plan(f"rollback to sha256 {stable.sha256[:12]}…", (action,))


def _list_candidates(config: Config, live_path: Path | None) -> list[tuple[Path, str | None, str]]:
    """Paths with the digest they must have (None: any) and why, the best first."""
    try:
        state = read_served_state(config)
    except InputError:
        state = None
    served = [state.current, *state.previous] if state else []
    found: list[tuple[Path, str | None, str]] = [
        (one.path, one.sha256, f"served until the switch after {one.switched_at_utc}")
        for one in served
    ]
    exports = [path for path in config.export_dir.glob("*.onnx") if not path.is_symlink()]
    exports.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    age = live_path.stat().st_mtime_ns if live_path and live_path.exists() else None
    older = [path for path in exports if age is None or path.stat().st_mtime_ns <= age]
    newer = [path for path in exports if path not in older]
    found += [(path, None, "the newest export before the live one") for path in older]
    found += [(path, None, "the only other export, newer than the live one") for path in newer]
    return found
