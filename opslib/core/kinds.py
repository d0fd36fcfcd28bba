"""Kinds of models: what a service serves side by side, such as a detector and a classifier.

Every question of which model is meant is asked for one kind. A configuration without `models:` has
one, of every exported model, which is the layout of a service with one model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from opslib.core.config import Config
from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.environment import read_variable
from opslib.core.errors import ConfigError, ParameterError
from opslib.core.files import expand_user
from opslib.core.models import CHECKPOINT_SUFFIXES, follow_model
from opslib.core.models_section import KindSection, fill_in
from opslib.core.sections import ClientSection
from opslib.core.served import ONLY_KIND

LATEST_NAME = "latest.onnx"
MODEL_SUFFIXES = (".onnx", *CHECKPOINT_SUFFIXES)
PIN = "MODEL_PATH"
FIELDS = ("request_field", "path_field", "digest_field", "loaded_field")


@dataclass(frozen=True)
class Kind:
    """One kind of models: its `name` as in `models:`, or `model` where there are no kinds.

    Files of the export folder are of this kind by `pattern`; `link` is the name there that means
    the one to serve, and `pin` the variable in `pin_file` that pins one, relative to `root`.
    `contract` `any` means: it loads and gives its golden outputs. `keep` is how many maintenance
    keeps, `client` how a service is asked for it, as `section` of the configuration says. `others`
    are the patterns of the other kinds; `named` says that the configuration names `pin_file`, which
    must be there then.
    """

    name: str
    pattern: str
    link: str
    pin: str
    pin_file: Path
    root: Path
    contract: Literal["classifier", "any"]
    keep: int
    client: ClientSection = field(repr=False)
    sole: bool = True
    others: tuple[str, ...] = ()
    named: bool = False
    section: str = "client"

    def has(self, name: str) -> bool:
        """Return whether a file of this name is a model of this kind, and of no other."""
        if name.startswith(".") or not fnmatchcase(name, self.pattern):
            return False
        return not any(fnmatchcase(name, pattern) for pattern in self.others)

    def of(self, text: str) -> str:
        """Return `text` with the kind's name before it, where there are others."""
        return text if self.sole else f"{self.name}: {text}"

    @property
    def option(self) -> str:
        """What a command line that is shown to somebody needs to mean this kind."""
        return "" if self.sole else f" --kind {self.name}"

    def key(self, name: str) -> str:
        """Return the key of the configuration that says `name`, such as `path_field`, of it."""
        return f"{self.section}.{name}"

    def pin_source(self, env_file: Path | None = None) -> Path:
        """Return the file with its pin: the one that the configuration names, else `env_file`, the
        service's own, else `.env` beside the configuration."""
        return env_file if env_file is not None and not self.named else self.pin_file

    def pins(self, env_file: Path | None = None) -> tuple[Path, ...]:
        """Return the models that the environment and `pin_source` pin; the first one counts. Raises
        `ConfigError` where the file cannot be read or is not there although it was named, or a path
        is none."""
        source = self.pin_source(env_file)
        if self.named and not source.is_file():
            raise ConfigError(f"models.{self.name}.pin_file: {source}: no such file")
        try:
            named = read_variable(source, self.pin)
            return tuple((self.root / expand_user(Path(one))).absolute() for one in named)
        except ValueError as error:
            raise ConfigError(f"{self.pin}: {error}") from error


def list_kinds(config: Config) -> tuple[Kind, ...]:
    """Return the kinds of models, as the configuration lists them."""
    if config.models:
        return tuple(_make_kind(config, name, one) for name, one in config.models.items())
    fields = {name: getattr(config.client, name) for name in FIELDS}
    sole = KindSection(pattern="*.onnx", link=LATEST_NAME, pin=PIN, **fields)
    return (_make_kind(config, ONLY_KIND, sole),)


def pick_kind(config: Config, name: str | None = None) -> Kind:
    """Return the kind called `name`, or the only one. Raises `ParameterError` where there is none
    of this name, or several and none was named."""
    kinds = list_kinds(config)
    names = ", ".join(kind.name for kind in kinds)
    if name is None:
        if len(kinds) > 1:
            raise ParameterError(f"kind: several are served: {names}; name one (--kind)")
        return kinds[0]
    found = next((kind for kind in kinds if kind.name == name), None)
    if found is None:
        raise ParameterError(f"kind: got {name!r}; expected one of {names}")
    return found


def pick_kind_of(config: Config, path: Path, name: str | None) -> Kind:
    """Return the kind called `name`, else that of the model at `path`. Raises `ParameterError`
    where the model is of another kind than was named; or it is of none by its name, several are
    served and none was named."""
    found = find_kind(config, path)
    if name is None and found is not None:
        return found
    if name is None and len(kinds := list_kinds(config)) > 1:
        patterns = ", ".join(f"{kind.name} ({kind.pattern})" for kind in kinds)
        raise ParameterError(f"{path}: of no kind by its name; name one with --kind: {patterns}")
    chosen = pick_kind(config, name)
    if found is not None and found != chosen:
        raise ParameterError(
            f"--kind {chosen.name}: {path} is of kind {found.name} by its name; expected "
            f"{chosen.pattern}"
        )
    return chosen


def pick_classifier(config: Config, name: str | None = None) -> Kind:
    """Return the kind called `name`, else the only one, else the only classifier. Raises
    `ParameterError` where there is none of this name, or none was named and several are
    classifiers, or none is."""
    classifiers = [kind for kind in list_kinds(config) if kind.contract == "classifier"]
    if name is None and len(classifiers) == 1:
        return classifiers[0]
    return pick_kind(config, name)


def named_in_env_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield each variable of the files with pins that names a model, of whatever kind, and it.
    Raises `ConfigError` where a file cannot be read."""
    for source, root in dict.fromkeys((kind.pin_file, kind.root) for kind in list_kinds(config)):
        for name, value in read_env_file(source).items():
            if value.endswith(MODEL_SUFFIXES):
                yield name, root / value


def find_kind(config: Config, path: Path) -> Kind | None:
    """Return the kind of the model at `path`, by its file's name, or None where none has it,
    or several."""
    name = follow_model(path).name
    return next((kind for kind in list_kinds(config) if kind.has(name)), None)


def _make_kind(config: Config, name: str, given: KindSection) -> Kind:
    whole = fill_in(name, given)
    pin_file = config.resolve(given.pin_file) if given.pin_file else config.root / ENV_NAME
    return Kind(
        name=name,
        pattern=str(whole.pattern),
        link=str(whole.link),
        pin=str(whole.pin),
        pin_file=pin_file,
        root=pin_file.parent if given.pin_file else config.root,
        contract=given.contract,
        keep=given.keep or config.maintenance.keep_onnx,
        client=config.client.model_copy(update={name: getattr(whole, name) for name in FIELDS}),
        sole=len(config.models) <= 1,
        others=tuple(
            str(fill_in(other, one).pattern)
            for other, one in config.models.items()
            if other != name
        ),
        named=given.pin_file is not None,
        section=f"models.{name}" if config.models else "client",
    )
