"""What an answer of `/health` says of the model in service: read alike by the client, the watch
and the checks. No HTTP here, so that a job of each minute loads nothing heavy.

Only exactly `degraded` is degraded: another model is served than should be, or none, while the
service answers. The same words stand in `scripts/health_watch.ps1`, held by `tests/cases/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 80


def describe_degraded(answer: Mapping[str, Any]) -> str | None:
    """Return what a degraded service says of itself on one line, or None where it is not."""
    if answer.get("status") != "degraded":
        return None
    if "wanted" not in answer and "served" not in answer:
        return "degraded"
    wanted = _text(answer.get("wanted")) or "unknown"
    served = _text(answer.get("served")) or "none"
    reason = _text(answer.get("reason"))
    return f"degraded: wanted {wanted}, serves {served}{f' ({reason})' if reason else ''}"


def _text(value: Any) -> str:
    """A text on one line, cut; nothing else is repeated."""
    return " ".join(value.split())[:LONGEST] if isinstance(value, str) else ""
