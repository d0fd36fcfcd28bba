"""Which model is served at start: `MODEL_PATH`, else the last one switched in, else the latest.

The first of the order is the one that is wanted. Where it cannot be loaded the next one stands in
for it, and the service says that it is degraded until the wanted one, or a chosen one, is served.
"""

import logging
import os
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError
from opslib.core.kinds import Kind
from opslib.core.models import follow_model
from opslib.core.served import ServedState, WantedModel, read_served_state
from opslib.inference.find_model import BEST_CHECKPOINT, list_exports
from opslib.serving.logs import EVENT_LOGGER
from opslib.serving.reload import StageError
from opslib.serving.service import Service
from opslib.serving.standing import Shortfall

_log = logging.getLogger(f"{EVENT_LOGGER}.start")


def load_first_model(service: Service) -> None:
    """Put the first usable model of the start order into service, or none where none is usable; a
    `MODEL_PATH` that is refused is a `ModelError`, and no other is served in its place."""
    settings = service.settings
    config, pinned = settings.config, settings.pinned
    try:
        state, damage = read_served_state(config), None
    except InputError as error:
        _log.error("the state file is ignored: %s", error)
        state, damage = None, str(error)
    if state is not None:
        service.generations.last_number = state.current.generation
    if pinned is not None:
        try:
            service.reloader.start_with(pinned)
        except StageError as error:
            problem = f"stage {error.stage}: {error} (hint: {error.hint})"
            raise ModelError(f"{settings.kind.pin}: {problem}") from error
        return
    order = start_order(config, state, settings.kind)
    wanted = order[0] if order else None
    if damage is not None:
        wanted = WantedModel(path=None, version_tag=None, why=damage)
    for one in order:
        if one.path is None:
            continue
        try:
            service.reloader.start_with(one.path, wanted)
        except StageError as error:
            fields = {"stage": error.stage, "hint": error.hint, "model_path": str(one.path)}
            _log.error("not served: %s", error, extra={"fields": fields})
        else:
            return
    service.standing.settle(Shortfall("no model could be loaded", wanted))


def start_order(config: Config, state: ServedState | None, kind: Kind) -> list[WantedModel]:
    """Return the models to try, best first, each once; the first is the one that is wanted.

    A link that leads nowhere stands in its place: that it cannot be followed is found when it is
    tried, and must not go unnoticed.
    """
    latest, best = config.export_dir / kind.link, config.exp_dir / BEST_CHECKPOINT
    order = [state.wanted] if state and state.wanted else []
    if state is not None:
        why = "it was switched in last" if state.wanted is None else "it stood in before"
        tag, sha256 = state.current.version_tag, state.current.sha256
        order.append(WantedModel(path=state.current.path, version_tag=tag, sha256=sha256, why=why))
    if os.path.lexists(latest):
        tag = _follow(latest).stem
        order.append(WantedModel(path=latest, version_tag=tag, why=f"{kind.link} means it"))
    for path in _list_exports(config.export_dir, kind):
        order.append(WantedModel(path=path, version_tag=path.stem, why="it is the newest export"))
    if os.path.lexists(best):
        order.append(WantedModel(path=best, version_tag=best.stem, why="there is no export"))
    found: dict[str, WantedModel] = {}
    for one in order:
        found.setdefault(os.path.realpath(one.path) if one.path else "", one)
    return list(found.values())


def _list_exports(folder: Path, kind: Kind) -> list[Path]:
    try:
        return list_exports(folder, kind)
    except ModelError as error:
        _log.error("%s", error)
        return []


def _follow(link: Path) -> Path:
    """The file that a link names, also where it is not there; the link itself for a circle."""
    real = follow_model(link)
    # Of a folder that cannot be looked into, `Path` raises.
    return link if os.path.islink(real) and not os.path.exists(real) else real  # noqa: PTH110, PTH114
