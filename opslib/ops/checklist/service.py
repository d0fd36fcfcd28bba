"""Whether the service answers, inside and outside, and with the model that it should."""

from __future__ import annotations

import os
import shutil

from opslib.core.errors import InputError, ModelError
from opslib.core.kinds import Kind, list_kinds
from opslib.core.models import resolve_model
from opslib.core.served import read_served_state
from opslib.ops.checklist.items import Answer, State, Visit, answer_worst
from opslib.ops.checklist.live import ask_health, ask_version, could_not_ask, start_step
from opslib.serving.client import ServiceError
from opslib.serving.live import LiveVersion
from opslib.serving.swap import is_same_model
from opslib.upkeep.probe import CheckResult, probe

REPAIR = (
    "switch to the model that should be served: `pillops reload --path MODEL`; "
    "where it should lie and why it is not served: `/version` and logs/api.err"
)
TUNNEL = "restart the tunnel: `sc.exe stop Cloudflared`, `sc.exe start Cloudflared`"


def check_inside(visit: Visit) -> Answer:
    """Return whether the service answers on this host, has the model of each kind that it should,
    and uses the card."""
    result = _probe(visit, visit.config.health.internal_url)
    if not result.ok:
        step = f"{start_step(visit.config)}; if it ended by itself, read logs/api.err"
        return Answer(state="failed", evidence=(_describe(result),), next_step=step)
    found: list[tuple[State, str]] = [("failed" if result.degraded else "ok", _describe(result))]
    steps: list[str] = []
    try:
        said = {kind.name: ask_health(visit, kind) for kind in list_kinds(visit.config)}
    except ServiceError as error:
        return Answer(
            state="failed",
            evidence=(_describe(result), f"client.url is another service, or none: {error}"),
            next_step=error.hint,
        )
    whole = next(iter(said.values()))
    for kind in list_kinds(visit.config):
        if said[kind.name].model_loaded is False:
            found.append(("failed", kind.of("it has no model: /predict answers 503")))
            steps.append(f"switch one in: `{_reload(kind)} MODEL`; logs/api.err says why")
    if whole.degraded is not None or result.degraded:
        if not result.degraded:
            found.append(("failed", f"{visit.config.client.url}: {whole.degraded}"))
        steps.append(REPAIR)
    device = whole.device or "an unnamed device"
    wants_card = visit.config.onnx.providers[0] != "CPU" and shutil.which("nvidia-smi")
    on_wrong = bool(wants_card) and device == "cpu"
    if on_wrong:
        found.append(("attention", "it runs on the CPU although this host has a card"))
        steps.append("why CUDA could not start: the first lines of logs/api.err after its start")
    for kind in list_kinds(visit.config):
        loaded = said[kind.name].model_loaded
        if loaded and not on_wrong:
            found.append(("ok", kind.of(f"a model is loaded, on {device}")))
        if loaded is None:
            field = kind.client.loaded_field
            what = f"not said: whether a model is loaded; /health has no {field}"
            found.append(("unknown", kind.of(what)))
            steps.append(f"name the field that says it: `{kind.key('loaded_field')}`")
    return answer_worst(found, steps)


def check_outside(visit: Visit) -> Answer:
    """Return whether the service answers where its users reach it, through the tunnel."""
    url = visit.config.health.external_url
    if url is None:
        demo = visit.config.is_demo
        return Answer(
            state="not applicable" if demo else "attention",
            evidence=("not set up: health.external_url is null",),
            next_step=None if demo else "name it: `health.external_url` in config.yaml",
        )
    result = _probe(visit, url)
    if result.degraded:
        return Answer(state="failed", evidence=(_describe(result),), next_step=REPAIR)
    if result.ok:
        return Answer(state="ok", evidence=(_describe(result),))
    inside = _probe(visit, visit.config.health.internal_url)
    where = "the service answers inside: it is the tunnel" if inside.ok else "nor does it inside"
    step = TUNNEL if inside.ok else "first the service itself: see Health, inside"
    return Answer(state="failed", evidence=(_describe(result), where), next_step=step)


def check_live_model(visit: Visit) -> Answer:
    """Return whether the model of each kind that answers is the one that its link in the export
    folder means, such as `latest.onnx`."""
    found: list[tuple[State, str]] = []
    steps: list[str] = []
    for kind in list_kinds(visit.config):
        try:
            live = ask_version(visit, kind)
        except ServiceError as error:
            return could_not_ask(error)
        whole = answer_worst(_look_at_live(visit, kind, live, steps))
        # All lines of a kind stand together: where the worst of them does.
        found += [(whole.state, kind.of(line)) for line in whole.evidence]
    return answer_worst(found, steps)


def _look_at_live(
    visit: Visit, kind: Kind, live: LiveVersion | None, steps: list[str]
) -> list[tuple[State, str]]:
    if live is None:
        steps.append(f"switch one in: `{_reload(kind)} MODEL`")
        return [("failed", "no model is served")]
    if not live.said:
        fields = f"{kind.client.path_field} nor {kind.client.digest_field}"
        steps.append(f"name the field that says it: `{kind.key('path_field')}`")
        return [("unknown", f"not said: which model is served; /version has neither {fields}")]
    found: list[tuple[State, str]] = [("ok", f"live: {live.describe()}")]
    if live.wanted is not None:
        found.append(("failed", live.wanted))
        steps.append(
            "put it back (`pillops release list` shows the copies) and `pillops reload --path` it; "
            f"or keep the live one: `{_reload(kind)} {live.model_path}`"
        )
    _compare_latest(visit, kind, live, found, steps)
    _compare_pin(kind, live, found, steps)
    return found


def _compare_latest(
    visit: Visit, kind: Kind, live: LiveVersion, found: list[tuple[State, str]], steps: list[str]
) -> None:
    latest = visit.config.export_dir / kind.link
    try:
        name = resolve_model(latest).name
    except ModelError:
        what = "points at nothing" if os.path.lexists(latest) else "is not there"
        found.append(("attention", f"{latest} {what}: nothing to compare the live model with"))
        steps.append(f"link the model that should be served: `ln -sfn MODEL.onnx {latest}`")
        return
    if is_same_model(live, latest):
        how = "" if live.sha256 else " (the path was compared: there is no digest)"
        found.append(("ok", f"it is {kind.link}, {name}{how}"))
        return
    since = _switched_at(visit, live)
    found.append(("attention", f"{kind.link} means another model, {name}{since}"))
    steps.append(
        f"`pillops reload --path {latest}`; after a rollback leave it, and repair the model first"
    )


def _compare_pin(
    kind: Kind, live: LiveVersion, found: list[tuple[State, str]], steps: list[str]
) -> None:
    path = next(iter(kind.pins()), None)
    if path is None:
        return
    if is_same_model(live, path):
        found.append(("ok", f"{kind.pin} pins it: a restart brings back {path.name}"))
        return
    what = "another model" if os.path.lexists(path) else "a model that is not there"
    found.append(
        (
            "attention",
            f"{kind.pin} in {kind.pin_file.name} names {what}, {path}: a restart serves that",
        )
    )
    steps.append(f"`pillops reload --persist --path {live.model_path or 'MODEL'}`, or clear it")


def _reload(kind: Kind) -> str:
    """The command that switches to a model of the kind, up to the model."""
    return f"pillops reload{kind.option} --path"


def _switched_at(visit: Visit, live: LiveVersion) -> str:
    try:
        state = read_served_state(visit.config)
    except InputError:
        return ""
    if state is None or state.current.sha256 != live.sha256:
        return ""
    return f" (the live one was switched in at {state.current.switched_at_utc[:16]} UTC)"


def _probe(visit: Visit, url: str) -> CheckResult:
    timeout_s = visit.config.checklist.timeout_s
    return probe({"it": url}, timeout_s)["it"]


def _describe(result: CheckResult) -> str:
    return f"{result.url}: {result.detail}, {result.took_ms:.0f} ms"
