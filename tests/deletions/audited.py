"""What the interpreter itself saw of each job's file operations, beside what the layer saw:
`python -m tests.deletions.audited` prints where the two differ, and nothing where they do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from opslib.ops.release.command import prune
from opslib.ops.release.restore import restore_release
from opslib.ops.release.store import pin_release
from opslib.upkeep.maintain_command import maintain
from tests.deletions.template import open_world
from tests.deletions.things import Fate, Outcome
from tests.deletions.world import World

_PLAIN = {
    "os.remove": "remove",
    "os.rmdir": "rmdir",
    "os.mkdir": "mkdir",
    "os.chmod": "chmod",
    "os.truncate": "truncate",
}
_PAIRS = {"os.rename": "rename", "os.link": "link", "os.symlink": "symlink"}
_ALIKE = {"unlink": "remove", "replace": "rename", "fchmod": "chmod", "ftruncate": "truncate"}
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_UNSEEN = ("bytes", "utime")  # no event tells of bytes, and the layer dates files itself


def main() -> int:
    """Run each kind of job once under both eyes."""
    world = open_world("busy", shared=True)
    first = world.instances[0]
    model = list(world.models.values())[-1]
    release = next(one for one in world.releases.values() if one.path.exists())
    jobs: dict[str, Callable[[], Outcome]] = {
        "export": lambda: world.export_model(
            weights=True, card=True, link=True, checkpoint=None, fate=Fate()
        ),
        "serve": lambda: world.serve(first, model, Fate()),
        "release": lambda: world.release(first, Fate()),
        "restore": lambda: world.run(
            lambda: restore_release(release.path, config=first.config, load_models=False)
        ),
        "pin": lambda: world.run(lambda: pin_release(first.config, release.name)),
        "maintain": lambda: world.run(
            lambda: maintain(config=first.config_path, clock_is_right=True)
        ),
        "prune": lambda: world.run(lambda: prune(config=first.config_path)),
        "stop": lambda: world.stop(first),
    }
    watch = _Watch(world)
    sys.addaudithook(watch.note)
    different = 0
    for name, job in jobs.items():
        watch.seen = []
        outcome = job()
        expected = [
            (_ALIKE.get(kind, "open" if kind == "create" else kind), path)
            for kind, path in outcome.life.done
            if kind not in _UNSEEN
        ]
        assert expected, f"{name} did nothing"
        if expected != watch.seen:
            different += 1
            sys.stdout.write(f"{name}: the layer saw {expected}, there was {watch.seen}\n")
    return different


class _Watch:
    """The file operations of this process below a world's folder, as audit events tell them."""

    def __init__(self, world: World) -> None:
        self._layer = world.layer
        self.seen: list[tuple[str, str]] = []

    def note(self, event: str, details: tuple[Any, ...]) -> None:
        """Take one event down if it changes something there."""
        if event == "open":  # with a number a file that is open already gets a buffer
            if details[2] & _CHANGES and not isinstance(details[0], int):
                self._add("open", details[0], -1)
        elif event in _PLAIN:
            self._add(_PLAIN[event], details[0], details[-1])
        elif event in _PAIRS:
            self._add(_PAIRS[event], details[1], details[-1])

    def _add(self, kind: str, path: Any, folder: Any) -> None:
        where = self._layer.find(path, folder if isinstance(folder, int) and folder >= 0 else None)
        if where is not None:
            self.seen.append((kind, where))


if __name__ == "__main__":
    sys.exit(main())
