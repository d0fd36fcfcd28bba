"""The service that is drilled: started from a copy of the experiment, or one that runs already."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import (
    BusyError,
    ConfigError,
    InputError,
    ModelError,
    OpsError,
    ParameterError,
)
from opslib.core.files import hide_name
from opslib.core.formatting import format_bytes
from opslib.core.kinds import Kind, pick_classifier, pick_kind
from opslib.core.models import find_model_files, follow_model, is_onnx, resolve_model
from opslib.core.sections import ClientSection
from opslib.core.served import read_served_state
from opslib.inference.find_model import find_onnx
from opslib.ops.drill.copies import COPIES, copy_experiment
from opslib.ops.drill.request import DrillRequest
from opslib.ops.release.rollback import find_stable
from opslib.ops.release.scratch import scratch_folder
from opslib.serving.client import ServiceClient, ServiceError
from opslib.serving.keys import KEY_VARIABLE
from opslib.serving.live import LiveVersion
from opslib.serving.precheck import Precheck
from opslib.serving.staging import StagedService
from opslib.serving.swap import local_digests
from opslib.timing.disturbance import list_foreign_gpu_processes

# A drill sends more than a client may; the limit has tests of its own.
RATE_LIMIT_PER_MIN = 1_000_000_000
_HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Target:
    """A service to be drilled, and what may be done to it.

    `stable`: the model that it serves and must serve in the end. `others`: paths of the other
    model; more than one where each is a full load. `stables`: the same of the stable model, for
    swaps that look for leaks. `ground`: folder for bad models, one outside for those that must not
    be read; None where they cannot be put there. `staged`: the service's process where it is ours
    to kill. `kind`: which kind of models is swapped. `barred`: why no bad model may be offered;
    None: they may.
    """

    url: str
    key: str = field(repr=False)
    config: Config
    stable: Path
    others: tuple[Path, ...]
    kind: Kind
    stables: tuple[Path, ...] = ()
    ground: tuple[Path, Path] | None = None
    staged: StagedService | None = field(default=None, repr=False)
    barred: str | None = None

    @property
    def homes(self) -> tuple[Path, ...]:
        """Paths of the stable model to switch to, more than one where each is a full load."""
        return self.stables or (self.stable,)

    @property
    def pid(self) -> int | None:
        """The service's process, where it is known."""
        return self.staged.running.pid if self.staged else None

    def connect(self) -> ServiceClient:
        """Return a connection that the caller closes."""
        return ServiceClient(self.url, self.key, self.section)

    @property
    def section(self) -> ClientSection:
        """How it is asked: a service of ours by the contract's own field names."""
        section = self.kind.client
        return section if self.staged is None else ClientSection(timeout_s=section.timeout_s)


@contextmanager
def open_target(
    config: Config, request: DrillRequest, note: Callable[[str], None]
) -> Iterator[Target]:
    """Yield the service that the request means; a staging service ends with the block.

    `note`: told what a reader must know. Raises ModelError: there is no second model to swap with;
    ConfigError: the key of a running service is not known; BusyError: the card is serving already;
    InputError: a running service does not answer; ParameterError: there are several kinds of models
    and none was named, or there is none of that name, or it is none that a staging service serves.
    """
    kind = pick_kind(config, request.kind)
    opened = _open_running(config, request, kind, note) if request.url else None
    with opened or _open_staging(config, request, kind) as target:
        yield target


@contextmanager
def _open_staging(config: Config, request: DrillRequest, kind: Kind) -> Iterator[Target]:
    if kind.contract != "classifier":
        raise ParameterError(
            f"kind: a staging service serves a classifier, which a {kind.name} model is not; drill "
            "the service that serves it (--url)"
        )
    stable = request.model.absolute() if request.model else find_live(config, kind)
    live = LiveVersion(str(stable), find_model_files(stable).digest(), None, None)
    other = choose_other(config, request, live, kind)
    if not request.share_gpu and set(config.onnx.providers) - {"CPU"}:
        refuse_busy_card(config)
    with scratch_folder(Path(tempfile.gettempdir()).resolve(), "drill-copy") as folder:
        _check_room(folder, stable, other)
        copied = copy_experiment(config, stable, other, folder)
        variables = {"RATE_LIMIT_PER_MIN": str(RATE_LIMIT_PER_MIN)}
        with StagedService(copied.config_path, variables=variables, overrides=False) as staged:
            yield Target(
                staged.running.url,
                staged.key,
                config,
                copied.stable,
                copied.other_copies,
                kind,
                stables=copied.stable_copies,
                ground=(copied.export_dir / "bad", folder / "outside"),
                staged=staged,
            )


@contextmanager
def _open_running(
    config: Config, request: DrillRequest, kind: Kind, note: Callable[[str], None]
) -> Iterator[Target]:
    url = str(request.url)
    secret = load_service_environment(config).api_key
    if secret is None:
        raise ConfigError(f"{KEY_VARIABLE}: not set; put the key of {url} into .env")
    key = secret.get_secret_value()
    with ServiceClient(url, key, kind.client) as client:
        try:
            health, live = client.health(), client.version()
        except ServiceError as error:
            raise InputError(f"url: {error} ({error.hint})") from error
    if health.degraded is not None:
        raise InputError(
            f"url: {url} is {health.degraded}; a drill switches models, after which the wanted one "
            "would be forgotten: repair it first, or switch to the model that should be served"
        )
    if health.device == "cuda" and not request.share_gpu:
        raise BusyError(f"{url}: its card is serving; say share_gpu: true (--share-gpu) to load it")
    stable = _find_running_model(request, live, url, kind)
    check = Precheck(config, kind, live)
    other = choose_other(config, request, live, kind, check)
    unchecked = check(other)
    if unchecked is not None:
        note(unchecked)
    barred = None
    if live.sha256 is None and not request.allow_bad_models:
        barred = "the service is not ours; say allow_bad_models: true (--allow-bad-models)"
    ground = None
    if _is_own(url) and stable.is_file():
        bad = hide_name(stable.with_name("drill"))
        ground = (bad, Path(tempfile.gettempdir()) / bad.name)
    else:
        note("Bad models that need a file were not tried: the model folder is not on this host.")
    yield Target(url, key, config, stable, (other,), kind, ground=ground, barred=barred)


def _find_running_model(request: DrillRequest, live: LiveVersion, url: str, kind: Kind) -> Path:
    """The model that a running service serves, as it names it: a drill begins and ends on it.
    Raises InputError: it does not say so, and nobody else did; ParameterError: it serves another
    one than was named."""
    named = request.model.absolute() if request.model else None
    if live.model_path is None:
        if named is None:
            what = "model" if kind.sole else f"{kind.name} model"
            raise InputError(f"url: {url} does not say which {what} it serves; name it (--model)")
        return named
    served = Path(live.model_path)
    if named is not None and named.resolve() != served.resolve():
        raise ParameterError(
            f"model: {url} serves {served.name}, and a drill ends on the model that it found; "
            f"switch first: `pillops reload{kind.option} --host {url} --path {named}`"
        )
    return served


def find_live(config: Config, kind: Kind | None = None) -> Path:
    """Return the ONNX model that a service on this experiment would start with. `kind`: the kind
    asked for; the classifier by default. Raises ModelError: there is none, or the one that it
    should start with is not there; InputError: what is served is no ONNX model, or the service's
    state cannot be read."""
    kind = kind or pick_classifier(config)
    found = next(iter(kind.pins()), None)
    state = read_served_state(config)
    if found is None and state is not None:
        found = (state.wanted or state.current).path
        if found is None and state.wanted is not None:
            raise InputError(f"which model should be served is not known: {state.wanted.why}")
    path = found or find_onnx(config, kind=kind)
    if not is_onnx(follow_model(path)):
        raise InputError(f"{path}: served, but no ONNX model; name one with --model")
    return resolve_model(path, "a model to drill; name one with --model")


def choose_other(
    config: Config,
    request: DrillRequest,
    live: LiveVersion,
    kind: Kind | None = None,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Return the model to swap to: the one named, else the one that a rollback would choose.
    `kind`: which kind of models; the only one by default. `check`: raises `ModelError` for a model
    that must not be served. Raises ModelError: there is no second model; ParameterError: there are
    several kinds and none was named."""
    if request.other is not None:
        other = request.other.absolute()
        known = frozenset({live.sha256}) if live.sha256 else frozenset[str]()
        if not known and live.model_path:
            known = local_digests(config.resolve(live.model_path))
        if known & local_digests(other):
            raise ModelError(f"{other}: is the model in service; a drill needs two that differ")
        return other
    try:
        stable = find_stable(config, live, kind, check)
    except ModelError as error:
        raise ModelError(
            f"{config.export_dir}: no second model; a drill needs one to swap to and back from: "
            "export another, restore one from a release, or name one with --other"
        ) from error
    if stable.release is not None and not stable.path.exists():
        raise ModelError(
            f"{config.export_dir}: no second model; {stable.release} holds one: "
            f"`pillops release restore {stable.release}`, or name one with --other"
        )
    return stable.path


def refuse_busy_card(config: Config) -> None:
    """Refuse to load a card that is serving. Raises BusyError: the driver names other processes on
    it, or the configured service says so."""
    users = list(list_foreign_gpu_processes() or ())
    url = config.client.url
    if _is_own(url):
        try:
            with ServiceClient(url, "", config.client, timeout_s=_HEALTH_TIMEOUT_S) as client:
                if client.health().device == "cuda":
                    users.append(f"the service at {url}")
        except OpsError:
            pass
    if users:
        raise BusyError(
            f"the card is busy: {', '.join(users[:3])}; run the drill at another time, on the CPU "
            "(PILLSNAP_ONNX__PROVIDERS=CPU), or say share_gpu: true (--share-gpu)"
        )


def _is_own(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _check_room(folder: Path, stable: Path, other: Path) -> None:
    one, two = (find_model_files(path).size_bytes for path in (stable, other))
    needed = (COPIES + 2) * one + COPIES * two
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder.parent}: {format_bytes(free)} free, the copies need {format_bytes(needed)}; "
            "set TMPDIR to a larger disk"
        )
