"""Asking addresses whether they are healthy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial

from opslib.core.records import Part
from opslib.core.secrets import show_address
from opslib.upkeep.deadline import run_within
from opslib.upkeep.web import FAILURES, name_failure, request


class CheckResult(Part):
    """What one address answered: whether it is well, in a few words, and how long it took."""

    url: str
    ok: bool
    detail: str
    took_ms: float

    def describe(self) -> str:
        """Return the result in a few words."""
        return f"{'ok' if self.ok else 'FAILED'} ({self.detail}, {self.took_ms:.0f} ms)"


def probe(urls: Mapping[str, str], timeout_s: float) -> dict[str, CheckResult]:
    """Ask all `urls` at the same time and return what each answered within `timeout_s`.

    Healthy is an answer 200 whose JSON says `"status": "ok"`: a login page or another program on
    the port answers 200 too. Redirects are not followed.
    """
    jobs = {name: partial(_ask, url, timeout_s) for name, url in urls.items()}
    found = run_within(jobs, timeout_s)
    late = f"no answer within {timeout_s:g} s"
    return {
        name: found.get(name)
        or CheckResult(url=show_address(url), ok=False, detail=late, took_ms=timeout_s * 1000)
        for name, url in urls.items()
    }


def judge(status: int, body: bytes) -> tuple[bool, str]:
    """Return whether an answer means healthy, and the answer in a few words."""
    if status != 200:
        return False, f"HTTP {status}"
    try:
        content = json.loads(body)
    except ValueError:
        return False, "HTTP 200, no JSON"
    said = content.get("status") if isinstance(content, dict) else None
    if said != "ok":
        return False, f"HTTP 200, status {str(said)[:40]!r}"
    return True, "HTTP 200"


def _ask(url: str, timeout_s: float) -> CheckResult:
    started = time.monotonic()
    try:
        ok, detail = judge(*request(url, timeout_s))
    except TimeoutError:
        ok, detail = False, f"no answer within {timeout_s:g} s"
    except FAILURES as error:
        ok, detail = False, name_failure(error)
    took_ms = round((time.monotonic() - started) * 1000, 3)
    return CheckResult(url=show_address(url), ok=ok, detail=detail, took_ms=took_ms)
