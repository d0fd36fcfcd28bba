"""Which model is served at start: `MODEL_PATH`, else the last one switched in, else the latest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError
from opslib.core.served import ServedState, read_served_state
from opslib.inference.find_model import BEST_CHECKPOINT, LATEST_NAME, newest_first
from opslib.serving.logs import EVENT_LOGGER
from opslib.serving.reload import StageError
from opslib.serving.service import Service

_log = logging.getLogger(f"{EVENT_LOGGER}.start")


def load_first_model(service: Service) -> None:
    """Put the first usable model of the start order into service, or none where none is usable.

    Raises:
        ModelError: `MODEL_PATH` is set and that model is refused; another one is not served in
            its place.
    """
    config, pinned = service.settings.config, service.settings.environment.model_path
    state = _read_state(config)
    if state is not None:
        service.generations.last_number = state.current.generation
    if pinned is not None:
        try:
            service.reloader.start_with(config.resolve(pinned))
        except StageError as error:
            raise ModelError(
                f"MODEL_PATH: stage {error.stage}: {error} (hint: {error.hint})"
            ) from error
        return
    for path in start_order(config, state):
        try:
            service.reloader.start_with(path)
        except StageError as error:
            fields = {"stage": error.stage, "hint": error.hint, "model_path": str(path)}
            _log.error("not served: %s", error, extra={"fields": fields})
        else:
            return
    _log.error("no usable model: /predict answers 503 until one is switched in with /reload")


def start_order(config: Config, state: ServedState | None) -> Iterator[Path]:
    """Yield the models to try, best first, each once."""
    seen: set[Path] = set()
    exports = [path for path in config.export_dir.glob("*.onnx") if not path.is_symlink()]
    candidates = [
        *([state.current.path] if state else []),
        config.export_dir / LATEST_NAME,
        *newest_first(exports),
        config.exp_dir / BEST_CHECKPOINT,
    ]
    for path in candidates:
        if path.exists() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield path


def _read_state(config: Config) -> ServedState | None:
    try:
        return read_served_state(config)
    except InputError as error:
        _log.error("the state file is ignored: %s", error)
        return None
