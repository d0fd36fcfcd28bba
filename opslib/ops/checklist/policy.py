"""Whether the running service keeps to its policy: strangers, browsers, uploads.

Each is tried on the live service, as somebody who means no good would, with nothing that costs
it more than a refusal.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError
from opslib.core.formatting import plural
from opslib.ops.checklist.items import Answer, State, Visit, answer_worst
from opslib.ops.checklist.live import could_not_ask, open_http, read_key
from opslib.ops.checklist.oversize import Oversize, offer_oversize
from opslib.serving.keys import HEADER, KEY_VARIABLE, make_key

GUARDED = (("GET", "/version"), ("POST", "/predict"), ("POST", "/batch"), ("POST", "/reload"))
OPTIONAL = "/batch"  # a foreign service may have none
CLOSED = (401, 403)
NOT_THERE = 404
BUSY = (429, 503)
EVIL = "https://checklist.invalid"
ALLOWS = "access-control-allow-origin"
DEVELOPMENT = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104 (names, not an address)
ORIGINS_STEP = "list the front ends alone in CORS_ALLOW_ORIGINS of .env, then restart the service"


def check_strangers(visit: Visit) -> Answer:
    """Return whether every guarded route turns away a caller with no key or with a wrong one."""
    found: list[tuple[State, str]] = []
    absent = dict[str, None]()
    callers = {"without a key": None, "with a wrong key": make_key()}
    try:
        for who, key in callers.items():
            with open_http(visit, key=key) as client:
                for method, route in GUARDED:
                    status = client.request(method, route).status_code
                    if status == NOT_THERE and route == OPTIONAL:
                        absent[f"{method} {route}"] = None
                    elif status not in CLOSED:
                        found.append(("failed", f"{method} {route} {who}: {status}, not 401"))
    except httpx.HTTPError as error:
        return could_not_ask(error)
    closed = plural(len(GUARDED) - len(absent), "route")
    found = found or [("ok", f"{closed} closed without a key and with a wrong one")]
    found += [("ok", f"{name} is not there ({NOT_THERE})") for name in absent]
    step = "take it from the net until it is repaired: `sc.exe stop Cloudflared`"
    return answer_worst(found, (step,))


def check_cors(visit: Visit) -> Answer:
    """Return whether a browser on a foreign page is refused, and the front ends are let in."""
    listed = load_service_environment(visit.config).cors_allow_origins
    found: list[tuple[State, str]] = []
    steps = []
    try:
        with open_http(visit) as client:
            for origin in (EVIL, "null", *_lookalikes(listed)):
                allowed = _allowed_for(client, origin)
                if allowed in ("*", origin):
                    found.append(
                        ("failed", f"a page from {origin} is let in ({ALLOWS}: {allowed})")
                    )
                    steps.append(ORIGINS_STEP)
            refused = [one for one in listed if one != "*" and not _allowed_for(client, one)]
    except httpx.HTTPError as error:
        return could_not_ask(error)
    if "*" in listed:
        found.append(("failed", "CORS_ALLOW_ORIGINS in .env is *"))
        steps.append(ORIGINS_STEP)
    if refused:
        found.append(("attention", f"listed in .env, and refused: {', '.join(refused)}"))
        steps.append("restart the service, so that it reads .env again")
    development = [one for one in listed if urlsplit(one).hostname in DEVELOPMENT]
    if development and not visit.config.is_demo:
        found.append(("attention", f"a development origin is let in: {', '.join(development)}"))
        steps.append(ORIGINS_STEP)
    if all(state == "ok" for state, _ in found):
        found.append(("ok", f"foreign pages refused; let in: {', '.join(listed)}"))
    return answer_worst(found, steps)


def check_uploads(visit: Visit) -> Answer:
    """Return whether an image that is too large is refused, and what is no image too."""
    limit_mb = visit.config.checklist.upload_limit_mb
    try:
        key = read_key(visit)
        if not key:
            raise ConfigError(f"{KEY_VARIABLE}: not set; put the service's key into .env")
        offer = offer_oversize(
            visit.config.client.url, key, limit_mb, visit.config.checklist.timeout_s
        )
        found = [_judge_size(offer, limit_mb)]
        with open_http(visit, key=key) as client:
            for what, file in _no_images().items():
                status = client.post("/predict", files={"image": file}).status_code
                found.append(_judge_type(what, status))
    except httpx.HTTPError as error:
        return could_not_ask(error)
    except OSError as error:
        return could_not_ask(httpx.ConnectError(error.strerror or str(error)))
    return answer_worst(
        found, (f"MAX_UPLOAD_MB={limit_mb} and ALLOWED_EXTS in .env, then restart the service",)
    )


def _judge_size(offer: Oversize, limit_mb: int) -> tuple[State, str]:
    what, status = f"an image of {limit_mb + 1} MiB", offer.status
    if status == 413:
        return "ok", f"{what} is refused (413{', by its size alone' if offer.declared else ''})"
    if offer.closed:
        return "ok", f"{what} is refused (the service hung up)"
    if status in CLOSED:
        return "failed", f"{what}: {status}: the key in .env is not the service's"
    if status in BUSY:
        return "unknown", f"{what}: {status}: the service is busy, or has no model"
    if status is None:
        return "failed", f"{what} is taken in without an answer: there is no limit"
    return "failed", f"{what} is answered {status}, not 413: the limit is off, or higher"


def _judge_type(what: str, status: int) -> tuple[State, str]:
    if status in BUSY:
        return "unknown", f"{what}: {status}: the service is busy, or has no model"
    if status == 200:
        return "failed", f"{what} is classified as if it were an image"
    if status >= 500:
        return "failed", f"{what} breaks the service ({status})"
    return "ok", f"{what} is refused ({status})"


def _no_images() -> dict[str, tuple[str, bytes, str]]:
    page = b"<!doctype html><script>alert(1)</script>"
    return {
        "a text": ("checklist.txt", b"no image", "text/plain"),
        "a page that calls itself a photo": ("checklist.jpg", page, "image/jpeg"),
    }


def _lookalikes(listed: tuple[str, ...]) -> list[str]:
    """Origins that begin like a listed one, or end like it, and are others."""
    for origin in listed:
        host = urlsplit(origin).hostname
        if host and "." in host:
            return [f"https://{host}.checklist.invalid", f"https://checklist-{host}"]
    return []


def _allowed_for(client: httpx.Client, origin: str) -> str | None:
    """Which origin the service lets in when a page of `origin` asks, by preflight or plainly."""
    wish = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    wish["Access-Control-Request-Headers"] = HEADER
    for answer in (
        client.options("/predict", headers=wish),
        client.get("/health", headers={"Origin": origin}),
    ):
        allowed: str | None = answer.headers.get(ALLOWS)
        if allowed in ("*", origin):
            return allowed
    return None
