"""What people are told: the text of an alert and of a recovery notice, and the webhook."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from opslib.core.formatting import format_duration
from opslib.core.records import Part
from opslib.core.web import tell
from opslib.upkeep.health_rules import ActionName, HealthState, Reason
from opslib.upkeep.probe import CheckResult

LAYERS_DOWN = {
    "app": "the app is down",
    "tunnel": "the tunnel is down, the app answers",
    "both": "app and external address are both down",
}
DEGRADED = "another model is served than should be"
DEGRADED_WHY = "nothing is restarted for it: look at api.err"
SOUND = "the model that should be is served again; it was another for"
LAYERS_WERE = {
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


Event = Literal["alert", "recovery", "trouble"]


class Notice(Part):
    """One message to people: an alert, the news that it is over, or trouble of the watch itself."""

    event: Event
    text: str
    layer: str
    host: str
    at_utc: str
    since_utc: str

    def to_webhook(self) -> bytes:
        """Return the JSON that a webhook gets; `text` and `content` are what chat tools show."""
        return json.dumps({**self.model_dump(), "content": self.text}).encode()


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
    if "alert" in actions and (incident := after.incident) is not None:
        text = f"ALERT: {LAYERS_DOWN[incident.layer]} ({REASONS.get(reason, '')}); {seen}"
        found.append(_notice("alert", text, incident.layer, incident.since_s, now_s))
    if "recovery" in actions and (incident := before.incident) is not None:
        lasted = format_duration(max(now_s - incident.since_s, 0))
        text = (
            f"RECOVERED: all checks answer again; {LAYERS_WERE[incident.layer]} down for {lasted}"
        )
        found.append(_notice("recovery", text, incident.layer, incident.since_s, now_s))
    if "alert-degraded" in actions and (since_s := after.degradation.since_s) is not None:
        text = f"ALERT: {DEGRADED} ({DEGRADED_WHY}); {seen}"
        found.append(_notice("alert", text, "model", since_s, now_s))
    if "recovery-degraded" in actions and (since_s := before.degradation.since_s) is not None:
        text = f"RECOVERED: {SOUND} {format_duration(max(now_s - since_s, 0))}"
        found.append(_notice("recovery", text, "model", since_s, now_s))
    return tuple(found)


def write_trouble(what: str, now_s: int) -> Notice:
    """Return the news that something is wrong with the watch itself, not with what it watches."""
    return _notice("trouble", f"TROUBLE: {what}", "watch", now_s, now_s)


def deliver(notice: Notice, address: str, timeout_s: float) -> str | None:
    """Send a notice to a webhook; return None, or why it could not be delivered.

    The reason never repeats the address, which is a secret.
    """
    headers = {"Content-Type": "application/json"}
    return tell(address, timeout_s, body=notice.to_webhook(), headers=headers)


def _notice(event: Event, text: str, layer: str, since_s: int, now_s: int) -> Notice:
    host = socket.gethostname()
    return Notice(
        event=event,
        text=f"PillSnap {text} [{host}, since {_utc(since_s)}]",
        layer=layer,
        host=host,
        at_utc=_utc(now_s),
        since_utc=_utc(since_s),
    )


def _utc(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
