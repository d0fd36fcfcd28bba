"""What people are told: the text of an alert and of a recovery notice, and the webhook."""

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from opslib.core.formatting import format_duration
from opslib.core.records import Part
from opslib.core.web import tell
from opslib.upkeep.health_rules import ActionName, HealthState, Layer, Reason
from opslib.upkeep.probe import CheckResult

LAYERS_DOWN: dict[Layer, str] = {
    "app": "the app is down",
    "tunnel": "the tunnel is down, the app answers",
    "both": "app and external address are both down",
}
LAYERS_WERE: dict[Layer, str] = {
    "app": "the app was",
    "tunnel": "the tunnel was",
    "both": "app and external address were",
}
REASONS: dict[Reason, str] = {
    "still-failing": "still failing after a restart",
    "no-command": "nothing to restart is configured",
    "other-layer": "a restart of the tunnel would not help",
    "limit": "no more restarts within this hour",
}
DEGRADED = "another model is served than should be (nothing is restarted for it: look at api.err)"
SOUND = "the model that should be is served again; it was another for"
Event = Literal["alert", "recovery", "trouble"]


class Notice(Part):
    """One message to people: an alert, the news that it is over, or trouble of the watch itself."""

    event: Event
    text: str
    layer: str
    host: str
    at_utc: str
    since_utc: str

    def deliver(self, address: str, timeout_s: float) -> str | None:
        """Send it to a webhook; return None, or why it could not be delivered. The reason never
        repeats the address, which is a secret. Chat tools show `text` or `content`."""
        body = json.dumps({**self.model_dump(), "content": self.text}).encode()
        return tell(address, timeout_s, body=body, headers={"Content-Type": "application/json"})


def write_notices(
    actions: tuple[ActionName, ...],
    before: HealthState,
    after: HealthState,
    reason: Reason,
    checks: Mapping[str, CheckResult],
    now_s: int,
) -> tuple[Notice, ...]:
    """Return what people are told of a run that changed the state: what failed or is degraded, why
    nothing helped and what was seen; what is over, and how long it was."""
    seen = "; ".join(f"{name} {result.url}: {result.detail}" for name, result in checks.items())
    found = []

    def add(event: Event, text: str, layer: str, since_s: int) -> None:
        lasted = f" {format_duration(max(now_s - since_s, 0))}" if event == "recovery" else ""
        found.append(write_notice(event, f"{text}{lasted}", layer, since_s, now_s))

    if "alert" in actions and (incident := after.incident) is not None:
        text = f"ALERT: {LAYERS_DOWN[incident.layer]} ({REASONS.get(reason, '')}); {seen}"
        add("alert", text, incident.layer, incident.since_s)
    if "recovery" in actions and (incident := before.incident) is not None:
        were = f"RECOVERED: all checks answer again; {LAYERS_WERE[incident.layer]} down for"
        add("recovery", were, incident.layer, incident.since_s)
    if "alert-degraded" in actions and (since_s := after.degradation.since_s) is not None:
        add("alert", f"ALERT: {DEGRADED}; {seen}", "model", since_s)
    if "recovery-degraded" in actions and (since_s := before.degradation.since_s) is not None:
        add("recovery", f"RECOVERED: {SOUND}", "model", since_s)
    return tuple(found)


def write_notice(event: Event, text: str, layer: str, since_s: int, now_s: int) -> Notice:
    """Return a notice of this host; `trouble` is of the watch itself, not of what it watches."""
    host, since_utc = socket.gethostname(), _utc(since_s)
    text = f"PillSnap {text} [{host}, since {since_utc}]"
    return Notice(
        event=event, text=text, layer=layer, host=host, at_utc=_utc(now_s), since_utc=since_utc
    )


def _utc(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
