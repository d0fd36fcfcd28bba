"""Asking the running service: whether it answers, inside and outside, and with the model that it
should; what to say where it could not be asked."""

import os
import re
import shutil
from contextlib import suppress
from urllib.parse import urlsplit

import httpx

from opslib.core.config import Config
from opslib.core.environment import load_service_environment
from opslib.core.errors import InputError, ModelError
from opslib.core.kinds import Kind, list_kinds
from opslib.core.models import resolve_model
from opslib.core.served import ServedNote, read_served_state
from opslib.ops.checklist.items import Answer, Evidence, State, Visit
from opslib.serving.client import LiveHealth, ServiceClient, ServiceError
from opslib.serving.keys import HEADER
from opslib.serving.live import LiveVersion, normalise_url
from opslib.serving.swap import is_same_model, read_version
from opslib.upkeep.probe import CheckResult, probe

REPAIR = (
    "switch to the model that should be served: `pillops reload --path MODEL`; "
    "where it should lie and why it is not served: `/version` and logs/api.err"
)
TUNNEL = "restart the tunnel: `sc.exe stop Cloudflared`, `sc.exe start Cloudflared`"
WHY_CPU = "why CUDA could not start: the first lines of logs/api.err after its start"


def check_inside(visit: Visit) -> Answer:
    """Return whether the service answers on this host, has the model of each kind that it should,
    and uses the card."""
    config, found = visit.config, Evidence()
    result, told = _probe(visit, config.health.internal_url)
    if not result.ok:
        step = f"{start_step(config)}; if it ended by itself, read logs/api.err"
        return Answer.of("failed", told, step=step)
    found.add("failed" if result.degraded else "ok", told)
    try:
        said = [(kind, ask_health(visit, kind)) for kind in list_kinds(config)]
    except ServiceError as error:
        other = f"client.url is another service, or none: {error}"
        return Answer.of("failed", told, other, step=error.hint)
    whole = said[0][1]
    for kind, health in said:
        if health.model_loaded is False:
            step = f"switch one in: `{_reload(kind)} MODEL`; logs/api.err says why"
            found.add("failed", kind.of("it has no model: /predict answers 503"), step)
    if result.degraded:
        found.steps.append(REPAIR)
    elif whole.degraded is not None:
        found.add("failed", f"{config.client.url}: {whole.degraded}", REPAIR)
    device = whole.device or "an unnamed device"
    wants_card = config.onnx.providers[0] != "CPU" and shutil.which("nvidia-smi")
    on_wrong = bool(wants_card) and device == "cpu"
    if on_wrong:
        found.add("attention", "it runs on the CPU although this host has a card", WHY_CPU)
    for kind, health in said:
        if health.model_loaded and not on_wrong:
            found.add("ok", kind.of(f"a model is loaded, on {device}"))
        if health.model_loaded is None:
            field = kind.client.loaded_field
            what = f"not said: whether a model is loaded; /health has no {field}"
            step = f"name the field that says it: `{kind.key('loaded_field')}`"
            found.add("unknown", kind.of(what), step)
    return found.answer()


def check_outside(visit: Visit) -> Answer:
    """Return whether the service answers where its users reach it, through the tunnel."""
    url = visit.config.health.external_url
    if url is None:
        step = "name it: `health.external_url` in config.yaml"
        return visit.not_set_up("health.external_url is null", step)
    result, told = _probe(visit, url)
    if result.degraded:
        return Answer.of("failed", told, step=REPAIR)
    if result.ok:
        return Answer.of("ok", told)
    inside, _ = _probe(visit, visit.config.health.internal_url)
    where = "the service answers inside: it is the tunnel" if inside.ok else "nor does it inside"
    return Answer.of("failed", told, where, step=TUNNEL if inside.ok else SEE_SERVICE)


def check_live_model(visit: Visit) -> Answer:
    """Return whether the model of each kind that answers is the one that its link in the export
    folder means, such as `latest.onnx`."""
    found = Evidence()
    models = []
    for kind in list_kinds(visit.config):
        try:
            live = ask_version(visit, kind)
        except ServiceError as error:
            return could_not_ask(error)
        if live is not None and live.model_path is not None:
            models.append(_note_live(kind, live, live.model_path))
        seen = _look_at_live(visit, kind, live)
        # All lines of a kind stand together: where the worst of them does.
        found.lines += [(seen.state, kind.of(line)) for line in seen.answer().evidence]
        found.steps += seen.steps
    return found.answer().model_copy(update={"models": tuple(models)})


def _note_live(kind: Kind, live: LiveVersion, path: str) -> ServedNote:
    name = re.split(r"[/\\]", path)[-1]
    tag = live.version_tag
    return ServedNote(kind=kind.name, name=name, sha256=live.sha256, version_tag=tag)


def _look_at_live(visit: Visit, kind: Kind, live: LiveVersion | None) -> Evidence:
    found = Evidence()
    if live is None:
        found.add("failed", "no model is served", f"switch one in: `{_reload(kind)} MODEL`")
        return found
    if not live.said:
        fields = f"{kind.client.path_field} nor {kind.client.digest_field}"
        what = f"not said: which model is served; /version has neither {fields}"
        found.add("unknown", what, f"name the field that says it: `{kind.key('path_field')}`")
        return found
    found.add("ok", f"live: {live.describe()}")
    if live.wanted is not None:
        step = (
            "put it back (`pillops release list` shows the copies) and `pillops reload --path` it; "
            f"or keep the live one: `{_reload(kind)} {live.model_path}`"
        )
        found.add("failed", live.wanted, step)
    _compare_latest(visit, kind, live, found)
    path = next(iter(kind.pins()), None)
    if path is not None and is_same_model(live, path):
        found.add("ok", f"{kind.pin} pins it: a restart brings back {path.name}")
    elif path is not None:
        what = "another model" if os.path.lexists(path) else "a model that is not there"
        told = f"{kind.pin} in {kind.pin_file.name} names {what}, {path}: a restart serves that"
        step = f"`pillops reload --persist --path {live.model_path or 'MODEL'}`, or clear it"
        found.add("attention", told, step)
    return found


def _compare_latest(visit: Visit, kind: Kind, live: LiveVersion, found: Evidence) -> None:
    latest = visit.config.export_dir / kind.link
    try:
        name = resolve_model(latest).name
    except ModelError:
        what = "points at nothing" if os.path.lexists(latest) else "is not there"
        step = f"link the model that should be served: `ln -sfn MODEL.onnx {latest}`"
        told = f"{latest} {what}: nothing to compare the live model with"
        found.add("attention", told, step)
        return
    if is_same_model(live, latest):
        how = "" if live.sha256 else " (the path was compared: there is no digest)"
        found.add("ok", f"it is {kind.link}, {name}{how}")
        return
    state, since = None, ""
    with suppress(InputError):
        state = read_served_state(visit.config)
    if state is not None and state.current.sha256 == live.sha256:
        since = f" (the live one was switched in at {state.current.switched_at_utc[:16]} UTC)"
    told = f"{kind.link} means another model, {name}{since}"
    leave = "after a rollback leave it, and repair the model first"
    found.add("attention", told, f"`pillops reload --path {latest}`; {leave}")


def _reload(kind: Kind) -> str:
    """The command that switches to a model of the kind, up to the model."""
    return f"pillops reload{kind.option} --path"


def _probe(visit: Visit, url: str) -> tuple[CheckResult, str]:
    result = probe({"it": url}, visit.config.checklist.timeout_s)["it"]
    return result, f"{result.url}: {result.detail}, {result.took_ms:.0f} ms"


AGENT = {"User-Agent": "pillops-checklist"}
TOO_MANY = 429
SEE_SERVICE = "first the service itself: see Health, inside"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def start_step(config: Config) -> str:
    """Return what to do about a service that does not run; our own has a command for it."""
    address = urlsplit(normalise_url(config.client.url))
    here = address.hostname in _LOOPBACK and (address.port or 80) == config.service.port
    return "start the service" + (": `make serve`" if here and not config.models else "")


def read_key(visit: Visit) -> str:
    """Return the service's key, or an empty text where there is none."""
    secret = load_service_environment(visit.config).api_key
    return secret.get_secret_value() if secret else ""


def open_http(visit: Visit, *, key: str | None = None) -> httpx.Client:
    """Return an HTTP client of the running service, with `key` where one is given."""
    url, timeout_s = normalise_url(visit.config.client.url), visit.config.checklist.timeout_s
    headers = {**AGENT, **({HEADER: key} if key else {})}
    return httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)


def ask_health(visit: Visit, kind: Kind) -> LiveHealth:
    """Return what the service says of itself and of its model of this kind. Raises ServiceError: it
    refuses or does not answer."""
    with _open_client(visit, kind) as client:
        return client.health()


def ask_version(visit: Visit, kind: Kind) -> LiveVersion | None:
    """Return which model of this kind is served, or None where the service is up and has none.
    Raises ServiceError: it refuses or does not answer."""
    with _open_client(visit, kind) as client:
        return read_version(client)


def _open_client(visit: Visit, kind: Kind) -> ServiceClient:
    timeout_s = visit.config.checklist.timeout_s
    return ServiceClient(kind.client.url, read_key(visit), kind.client, timeout_s=timeout_s)


def could_not_ask(error: ServiceError | httpx.HTTPError | OSError) -> Answer:
    """Return the answer of an item whose question the service did not hear, or refused."""
    if not isinstance(error, ServiceError):
        said = getattr(error, "strerror", None) or str(error)
        words = " ".join(said.split()) or type(error).__name__
        return Answer.of("unknown", f"no answer: {words}", step=SEE_SERVICE)
    state: State = "unknown" if error.status in (None, TOO_MANY) else "failed"
    return Answer.of(state, str(error), step=error.hint if error.status else SEE_SERVICE)
