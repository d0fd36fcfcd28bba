"""Which models and checkpoints are in use, and why: asked anew before each deletion.

Adds to `serving.reachable` what a nightly job must know besides: what running services say, by
name and by digest; pinned releases; the export report; the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from opslib.core.cards import REPORT_NAME, card_path, read_report_fields
from opslib.core.clock import part_ahead
from opslib.core.errors import InputError, ModelError, StorageError
from opslib.core.kinds import list_kinds
from opslib.core.models import find_model_files
from opslib.inference.find_model import model_moment
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.store import list_releases, read_pins
from opslib.serving.reachable import LiveModel, ask_services, find_roots
from opslib.upkeep.rounds import Round, by_age, list_files


@dataclass(frozen=True)
class InUse:
    """Models and checkpoints that must be kept, links resolved, with the reason.

    `names` are file names that must be kept wherever they lie, `digests` those of whole models.
    """

    paths: dict[Path, str]
    names: dict[str, str]
    digests: dict[str, str]
    live: tuple[LiveModel, ...]

    def why(self, path: Path, units: Units | None = None) -> str | None:
        """Return why the model or checkpoint at `path` is in use, or None; with `units` a model is
        also compared by what is in it."""
        real = path.resolve()
        found = self.paths.get(real) or self.names.get(real.name)
        if found or units is None or not self.digests:
            return found
        return self.digests.get(units.digest(path))


def find_in_use(this: Round, live: tuple[LiveModel, ...] | None = None) -> InUse:
    """Return what is in use now. `live`: what services said a moment ago; they are asked where it
    is not given. Raises `StorageError` where it is not known what is served: a state or lease is
    unreadable, or a service is there but does not say. Or the export report is damaged;
    `ConfigError` where `.env` is unreadable."""
    config = this.config
    try:
        live = ask_services(config) if live is None else live
        roots = find_roots(config, live)
    except (InputError, ModelError) as error:
        raise StorageError(f"it is not known what is served: {error}") from error
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}") from error
    paths: dict[Path, str] = {}
    for path, why in (*((root.path, root.why) for root in roots), *_by_clock(this)):
        paths.setdefault(path, why)
    names, digests = _pinned(this)
    for one in live:
        if one.path is not None:
            names.setdefault(one.path.name, "served now, as /version says")
        if one.sha256 is not None and not (one.path and one.path.exists()):
            digests.setdefault(one.sha256, "served now, as /version says")
    report = read_field(config.export_dir / REPORT_NAME, "onnx_path")
    if report is not None:
        names.setdefault(Path(report).name, f"{REPORT_NAME} names it")
    return InUse(paths, names, digests, live)


class Units:
    """Which files belong to a model, and the digest of all: read once where it does not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def digest(self, model: Path) -> str:
        """Return the digest of a model, or an empty text where it is damaged."""
        return str(self._read_once(model, "digest", partial(_find_digest, model)))

    def sidecars(self, model: Path, name: str | None = None) -> tuple[Path, ...]:
        """Return the weights files of a model; of a damaged one, that named after it, or after the
        `name` that it had before."""
        found: tuple[Path, ...] = self._read_once(
            model, "sidecars", partial(_find_sidecars, model, name or model.name)
        )
        return found

    def _read_once(self, model: Path, what: str, read: Callable[[], object]) -> Any:
        facts = model.stat()
        key = (what, model, facts.st_mtime_ns, facts.st_size)
        if key not in self._known:
            self._known[key] = read()
        return self._known[key]

    def needed_by(self, models: list[Path]) -> set[Path]:
        """Return the weights files and cards of these models, links resolved."""
        weights = {path.resolve() for model in models for path in self.sidecars(model)}
        return weights | {card_path(model) for model in models}

    def deletable(self, model: Path, needed: set[Path], name: str | None = None) -> list[Path]:
        """Return the regular files that go with a model: its weights and its card, but for those
        that are `needed`, that a link leads out of its folder to, and the export report."""
        folder = model.parent.resolve()
        card = card_path(model.with_name(name or model.name))
        found = [*self.sidecars(model, name), card]
        return [
            path
            for path in dict.fromkeys(found)
            if path.is_file()
            and not path.is_symlink()
            and path.name != REPORT_NAME
            and path.resolve() not in needed
            and path.resolve().is_relative_to(folder)
        ]


def read_field(card: Path, name: str) -> str | None:
    """Return one text of a card or export report, ours or a foreign one, or None where there is no
    such file or it does not say. Raises `StorageError` where it is there but cannot be read, so
    that it is not known what it names."""
    try:
        value = read_report_fields(card).get(name)
    except InputError as error:
        raise StorageError(str(error)) from error
    return value if isinstance(value, str) and value else None


def list_models(folder: Path) -> list[Path]:
    """Return the regular `.onnx` files of a folder, the oldest first. Raises `StorageError` where
    it cannot be read."""
    found = list_files(folder, lambda name: name.endswith(".onnx") and not name.startswith("."))
    return [entry.path for entry in sorted(found, key=by_age)]


def _find_digest(model: Path) -> str:
    try:
        return find_model_files(model).digest()
    except (ModelError, OSError):
        return ""


def _find_sidecars(model: Path, name: str) -> tuple[Path, ...]:
    try:
        return find_model_files(model).sidecars
    except (ModelError, OSError):
        named_after = model.with_name(f"{name}.data")
        return (named_after,) if named_after.is_file() else ()


def _by_clock(this: Round) -> Iterator[tuple[Path, str]]:
    """Of each kind the newest model that a clock running ahead did not date, and the newest by its
    name."""
    past, _ = part_ahead(list_models(this.config.export_dir), model_moment, this.now)
    for kind in list_kinds(this.config):
        what = "export" if kind.sole else kind.name
        begin = kind.pattern.partition("*")[0] or "model-"
        of_kind = [path for path in past if kind.has(path.name)]
        for path in of_kind[-1:]:
            yield path.resolve(), f"the newest {what} that is not from the future"
        stamped = [path for path in of_kind if path.name.startswith(begin)]
        for path in sorted(stamped, key=lambda path: path.name)[-1:]:
            yield path.resolve(), f"the newest {what} by its name"


def _pinned(this: Round) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the models of pinned releases, and the digests of those that have another name
    here; each with the reason."""
    names, digests = dict[str, str](), dict[str, str]()
    try:
        pinned = set(read_pins(this.config).names)
        for release in list_releases(this.config) if pinned else ():
            for model in release.manifest().models if release.name in pinned else ():
                why = f"{release.name} is pinned"
                name = PurePosixPath(model.path).name
                names.setdefault(name, why)
                if not (this.config.export_dir / name).exists():
                    digests.update((one, why) for one in model.digests - digests.keys())
    except (InputError, ReleaseError) as error:
        raise StorageError(f"it is not known what pinned releases hold: {error}") from error
    return names, digests
