"""Whether the model in service is the one that should be, and if not, which one should be.

What should be served is settled at start and by each switch; that the files of the model in service
are still what was loaded is looked at ever after, by a thread of its own: a stat on a mount that
hangs must not hold the event loop up.
"""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from opslib.core.errors import OpsError
from opslib.core.models import follow_model
from opslib.core.served import WantedModel
from opslib.serving.generations import Generations
from opslib.serving.loaded import LoadedModel, Stamp, stamp_files
from opslib.serving.logs import EVENT_LOGGER

LOOK_EVERY_S = 1.0
REPAIR = "put it back and restart, or switch to the model that should be served with /reload"

Reason = Literal[
    "it could not be loaded",
    "its file is another than was switched in",
    "its files changed since it was loaded",
    "which was served last is not known",
    "no model could be loaded",
]

_log = logging.getLogger(f"{EVENT_LOGGER}.standing")


@dataclass(frozen=True)
class Shortfall:
    """That the service is degraded: which model should be served, where known, and why it is not.

    `reason` names no path, so that anybody may read it.
    """

    reason: Reason
    wanted: WantedModel | None = None


def find_shortfall(wanted: WantedModel | None, path: Path, sha256: str) -> Shortfall | None:
    """Return what is missing where the model `sha256`, loaded from `path`, is served, or None: the
    same content from another place is no shortfall."""
    if wanted is None or wanted.sha256 == sha256:
        return None
    if wanted.path is None:
        return Shortfall("which was served last is not known", wanted)
    if follow_model(wanted.path) != path:
        return Shortfall("it could not be loaded", wanted)
    changed = Shortfall("its file is another than was switched in", wanted)
    return changed if wanted.sha256 is not None else None


@dataclass
class Standing:
    """What is known of the model in service; safe to read from any thread."""

    generations: Generations
    _settled: Shortfall | None = None
    _changed: tuple[int, Shortfall] | None = None  # of this generation
    _seen: tuple[str, tuple[Stamp, ...], bool | None] | None = None  # digest, stamps, verdict
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def shortfall(self) -> Shortfall | None:
        """Why the service is degraded, or None where it serves what it should."""
        current, settled, changed = self.generations.current, self._settled, self._changed
        if current is None:
            return settled or Shortfall("no model could be loaded")
        if settled is None and changed is not None and changed[0] == current.number:
            return changed[1]
        return settled

    def settle(self, shortfall: Shortfall | None) -> None:
        """Take note of what follows from a start or a switch; it is logged where it is bad."""
        self._settled = shortfall
        if shortfall is None:
            return
        wanted, current = shortfall.wanted, self.generations.current
        served = current.model.path if current else "no model"
        path = (wanted and wanted.path) or "a model that is not known"
        why = f" ({wanted.why})" if wanted else ""
        message = "degraded: %s%s should be served: %s; served instead: %s; %s"
        _log.error(message, path, why, shortfall.reason, served, REPAIR)

    def watch(self) -> None:
        """Look at the files of the model in service from now on, until `close`."""
        threading.Thread(target=self._watch, name="standing", daemon=True).start()

    def look(self) -> None:
        """Look once whether the files of the model in service are still what was loaded."""
        current = self.generations.current
        if current is None:
            return
        before = self._changed is not None and self._changed[0] == current.number
        changed = not self._is_as_loaded(current.model, otherwise=not before)
        model, path, why = current.model, current.model.path, "it is in service"
        tag, sha256 = model.candidate.version_tag, model.sha256
        wanted = WantedModel(path=path, version_tag=tag, sha256=sha256, why=why)
        shortfall = Shortfall("its files changed since it was loaded", wanted)
        self._changed = (current.number, shortfall) if changed else None
        if changed and not before:
            _log.error("degraded: %s: its files changed since it was loaded; %s", path, REPAIR)
        elif before and not changed:
            _log.warning("%s: its files are again what was loaded", path)

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:
                _log.exception("the files of the model in service could not be looked at")

    def _is_as_loaded(self, model: LoadedModel, *, otherwise: bool) -> bool:
        """Whether the files hold what was loaded. A hard link or a move and back change nothing but
        the stamps: then the content decides, read once they hold still; `otherwise` until then."""
        if model.is_unchanged():
            return True
        try:
            stamps = stamp_files(model.candidate.files)
            if self._seen is None or self._seen[:2] != (model.sha256, stamps):
                self._seen = (model.sha256, stamps, None)
                return otherwise
            if self._seen[2] is None:
                same = model.candidate.files.digest() == model.sha256
                self._seen = (model.sha256, stamps, same)
            return bool(self._seen[2])
        except (OSError, OpsError):
            return False
