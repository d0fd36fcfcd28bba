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
from opslib.core.language import mark, tr
from opslib.core.models import resolve_model
from opslib.core.served import ServedNote, read_served_state
from opslib.ops.checklist.items import Answer, Evidence, State, Visit
from opslib.serving.client import LiveHealth, ServiceClient, ServiceError
from opslib.serving.keys import HEADER, check_sendable
from opslib.serving.live import LiveVersion, normalise_url
from opslib.serving.swap import is_same_model, read_version
from opslib.upkeep.probe import CheckResult, probe

REPAIR = mark(
    "switch to the model that should be served: `pillops reload --path MODEL`; "
    "where it should lie and why it is not served: `/version` and logs/api.err"
)


def check_inside(visit: Visit) -> Answer:
    """Return whether the service answers on this host, has the model of each kind that it should,
    and uses the card."""
    config, found = visit.config, Evidence()
    result, told = _probe(visit, config.health.internal_url)
    if not result.ok:
        step = tr("{start}; if it ended by itself, read logs/api.err", start=start_step(config))
        return Answer.of("failed", told, step=step)
    found.add("failed" if result.degraded else "ok", told)
    try:
        said = [(kind, ask_health(visit, kind)) for kind in list_kinds(config)]
    except ServiceError as error:
        other = tr("client.url is another service, or none: {error}", error=error)
        return Answer.of("failed", told, other, step=error.hint)
    whole = said[0][1]
    for kind, health in said:
        if health.model_loaded is False:
            step = tr(
                "switch one in: `{reload} MODEL`; logs/api.err says why", reload=_reload(kind)
            )
            found.add("failed", kind.of(tr("it has no model: /predict answers 503")), step)
    if result.degraded:
        found.steps.append(tr(REPAIR))
    elif whole.degraded is not None:
        found.add("failed", f"{config.client.url}: {whole.degraded}", tr(REPAIR))
    device = whole.device or tr("an unnamed device")
    wants_card = config.onnx.providers[0] != "CPU" and shutil.which("nvidia-smi")
    on_wrong = bool(wants_card) and device == "cpu"
    if on_wrong:
        step = tr("why CUDA could not start: the first lines of logs/api.err after its start")
        found.add("attention", tr("it runs on the CPU although this host has a card"), step)
    for kind, health in said:
        if health.model_loaded and not on_wrong:
            found.add("ok", kind.of(tr("a model is loaded, on {device}", device=device)))
        if health.model_loaded is None:
            field = kind.client.loaded_field
            what = tr("not said: whether a model is loaded; /health has no {field}", field=field)
            step = tr("name the field that says it: `{key}`", key=kind.key("loaded_field"))
            found.add("unknown", kind.of(what), step)
    return found.answer()


def check_outside(visit: Visit) -> Answer:
    """Return whether the service answers where its users reach it, through the tunnel."""
    url = visit.config.health.external_url
    if url is None:
        step = tr("name it: `{key}` in config.yaml", key="health.external_url")
        return visit.not_set_up(tr("{key} is null", key="health.external_url"), step)
    result, told = _probe(visit, url)
    if result.degraded:
        return Answer.of("failed", told, step=tr(REPAIR))
    if result.ok:
        return Answer.of("ok", told)
    inside, _ = _probe(visit, visit.config.health.internal_url)
    if not inside.ok:
        return Answer.of("failed", told, tr("nor does it inside"), step=tr(SEE_SERVICE))
    step = tr("restart the tunnel: `sc.exe stop Cloudflared`, `sc.exe start Cloudflared`")
    where = tr("the service answers inside: it is the tunnel")
    return Answer.of("failed", told, where, step=step)


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
        step = tr("switch one in: `{reload} MODEL`", reload=_reload(kind))
        found.add("failed", tr("no model is served"), step)
        return found
    if not live.said:
        what = tr(
            "not said: which model is served; /version has neither {path} nor {digest}",
            path=kind.client.path_field,
            digest=kind.client.digest_field,
        )
        step = tr("name the field that says it: `{key}`", key=kind.key("path_field"))
        found.add("unknown", what, step)
        return found
    found.add("ok", tr("live: {model}", model=live.describe()))
    if live.wanted is not None:
        step = tr(
            "put it back (`pillops release list` shows the copies) and `pillops reload --path` it; "
            "or keep the live one: `{reload} {path}`",
            reload=_reload(kind),
            path=live.model_path,
        )
        found.add("failed", live.wanted, step)
    _compare_latest(visit, kind, live, found)
    path = next(iter(kind.pins()), None)
    if path is not None and is_same_model(live, path):
        told = tr("{pin} pins it: a restart brings back {name}", pin=kind.pin, name=path.name)
        found.add("ok", told)
    elif path is not None:
        there = os.path.lexists(path)
        what = tr("another model") if there else tr("a model that is not there")
        told = tr(
            "{pin} in {file} names {what}, {path}: a restart serves that",
            pin=kind.pin,
            file=kind.pin_file.name,
            what=what,
            path=path,
        )
        step = tr(
            "`pillops reload --persist --path {path}`, or clear it", path=live.model_path or "MODEL"
        )
        found.add("attention", told, step)
    return found


def _compare_latest(visit: Visit, kind: Kind, live: LiveVersion, found: Evidence) -> None:
    latest = visit.config.export_dir / kind.link
    try:
        name = resolve_model(latest).name
    except ModelError:
        there = os.path.lexists(latest)
        what = tr("points at nothing") if there else tr("is not there")
        step = tr("link the model that should be served: `ln -sfn MODEL.onnx {link}`", link=latest)
        told = tr("{link} {what}: nothing to compare the live model with", link=latest, what=what)
        found.add("attention", told, step)
        return
    if is_same_model(live, latest):
        told = tr("it is {link}, {name}", link=kind.link, name=name)
        if not live.sha256:
            told = tr("{told} (the path was compared: there is no digest)", told=told)
        found.add("ok", told)
        return
    state, told = None, tr("{link} means another model, {name}", link=kind.link, name=name)
    with suppress(InputError):
        state = read_served_state(visit.config)
    if state is not None and state.current.sha256 == live.sha256:
        at = state.current.switched_at_utc[:16]
        told = tr("{told} (the live one was switched in at {at} UTC)", told=told, at=at)
    step = tr(
        "`pillops reload --path {link}`; after a rollback leave it, and repair the model first",
        link=latest,
    )
    found.add("attention", told, step)


def _reload(kind: Kind) -> str:
    """The command that switches to a model of the kind, up to the model."""
    return f"pillops reload{kind.option} --path"


def _probe(visit: Visit, url: str) -> tuple[CheckResult, str]:
    result = probe({"it": url}, visit.config.checklist.timeout_s)["it"]
    return result, f"{result.url}: {result.detail}, {result.took_ms:.0f} ms"


AGENT = {"User-Agent": "pillops-checklist"}
TOO_MANY = 429
SEE_SERVICE = mark("first the service itself: see Health, inside")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def start_step(config: Config) -> str:
    """Return what to do about a service that does not run; our own has a command for it."""
    address = urlsplit(normalise_url(config.client.url))
    here = address.hostname in _LOOPBACK and (address.port or 80) == config.service.port
    ours = here and not config.models
    return tr("start the service: `make serve`") if ours else tr("start the service")


def read_key(visit: Visit) -> str:
    """Return the service's key, or an empty text where there is none."""
    secret = load_service_environment(visit.config).api_key
    return secret.get_secret_value() if secret else ""


def open_http(visit: Visit, *, key: str | None = None) -> httpx.Client:
    """Return an HTTP client of the running service, with `key` where one is given."""
    url, timeout_s = normalise_url(visit.config.client.url), visit.config.checklist.timeout_s
    headers = {**AGENT, **({HEADER: check_sendable(key)} if key else {})}
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
        told = tr("no answer: {words}", words=words)
        return Answer.of("unknown", told, step=tr(SEE_SERVICE))
    state: State = "unknown" if error.status in (None, TOO_MANY) else "failed"
    return Answer.of(state, str(error), step=error.hint if error.status else tr(SEE_SERVICE))
