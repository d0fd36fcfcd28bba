"""Asking addresses whether they are healthy."""

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from opslib.core.deadline import run_within
from opslib.core.language import tr
from opslib.core.records import Part
from opslib.core.secrets import show_address
from opslib.core.web import FAILURES, name_failure, request
from opslib.serving.live import describe_degraded


class CheckResult(Part):
    """What one address answered: whether it is up, in a few words, and how long it took.

    One that is `degraded` is up, and serves another model than it should, or none.
    """

    url: str
    ok: bool
    detail: str
    took_ms: float
    degraded: bool = False

    def describe(self) -> str:
        """Return the result in a few words."""
        state = "DEGRADED" if self.degraded else "ok" if self.ok else "FAILED"
        return f"{state} ({self.detail}, {self.took_ms:.0f} ms)"


class Judgement(NamedTuple):
    """What an answer means: up or not, degraded or not, and the answer in a few words."""

    ok: bool
    degraded: bool
    detail: str


def probe(urls: Mapping[str, str], timeout_s: float) -> dict[str, CheckResult]:
    """Ask all `urls` at the same time and return what each answered within `timeout_s`.

    Up is an answer 200 whose JSON says `"status": "ok"` or `"degraded"`: a login page or another
    program on the port answers 200 too. Redirects are not followed.
    """
    found = run_within(
        {name: partial(_ask, url, timeout_s) for name, url in urls.items()}, timeout_s
    )
    late = tr("no answer within {seconds:g} s", seconds=timeout_s)
    return {
        name: found.get(name)
        or CheckResult(url=show_address(url), ok=False, detail=late, took_ms=timeout_s * 1000)
        for name, url in urls.items()
    }


def judge(status: int, body: bytes) -> Judgement:
    """Return what an answer means: only exactly `ok` and `degraded` are up."""
    if status != 200:
        return Judgement(False, False, f"HTTP {status}")
    try:
        content = json.loads(body)
    except ValueError:
        return Judgement(False, False, tr("HTTP 200, no JSON"))
    content = content if isinstance(content, dict) else {}
    if (degraded := describe_degraded(content)) is not None:
        return Judgement(True, True, f"HTTP 200, {degraded}")
    said = content.get("status")
    detail = "HTTP 200" if said == "ok" else f"HTTP 200, status {str(said)[:40]!r}"
    return Judgement(said == "ok", False, detail)


def _ask(url: str, timeout_s: float) -> CheckResult:
    started = time.monotonic()
    try:
        found = judge(*request(url, timeout_s))
    except TimeoutError:
        found = Judgement(False, False, tr("no answer within {seconds:g} s", seconds=timeout_s))
    except FAILURES as error:
        found = Judgement(False, False, name_failure(error))
    took_ms = round((time.monotonic() - started) * 1000, 3)
    return CheckResult(url=show_address(url), took_ms=took_ms, **found._asdict())
