"""Whether the key is a good one, and strangers, foreign pages and wrong uploads are kept out.

What the running service refuses is tried on it, as somebody who means no good would, with nothing
that costs it more than a refusal.
"""

import http.client
import select
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from opslib.core.clock import ASK, is_ahead
from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError
from opslib.core.language import mark, tr, tr_many
from opslib.ops.checklist.items import DAY_S, Answer, Evidence, State, Visit, describe_days
from opslib.ops.checklist.service import could_not_ask, open_http, read_key
from opslib.serving.keys import HEADER, KEY_VARIABLE, check_key, check_sendable, key_since, make_key
from opslib.serving.live import normalise_url

GUARDED = (("GET", "/version"), ("POST", "/predict"), ("POST", "/batch"), ("POST", "/reload"))
OPTIONAL = "/batch"  # a foreign service may have none
CLOSED = (401, 403)
NOT_THERE = 404
BUSY = (429, 503)
EVIL = "https://checklist.invalid"
ALLOWS = "access-control-allow-origin"
DEVELOPMENT = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104 (names, not an address)
ROTATE = mark("`pillops key rotate`, then restart the service and update every client")
_PAGE = b"<!doctype html><script>alert(1)</script>"
NO_IMAGES = {
    mark("a text"): ("checklist.txt", b"no image", "text/plain"),
    mark("a page that calls itself a photo"): ("checklist.jpg", _PAGE, "image/jpeg"),
}
ORIGINS_STEP = mark(
    "list the front ends alone in CORS_ALLOW_ORIGINS of .env, then restart the service"
)
MIB = 1 << 20
DECLARED_WAIT_S = 2.0
_BOUNDARY = "pillops-checklist"
_NAMED = 'Content-Disposition: form-data; name="image"; filename="checklist.jpg"'
_HEAD = f"--{_BOUNDARY}\r\n{_NAMED}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()


def check_key_age(visit: Visit) -> Answer:
    """Return the key's strength, its age, and who may read the file it is in; never the key."""
    env_file = visit.config.root / ENV_NAME
    try:
        check_key(read_key(visit) or None)
    except ConfigError as error:
        return Answer.of("failed", str(error).partition(";")[0], step=tr(ROTATE))
    found, limit_days = Evidence(), visit.config.checklist.key_age_days
    found.add("ok", tr("at least 32 random bytes"))
    in_file = bool(read_env_file(env_file).get(KEY_VARIABLE))
    since = key_since(env_file) if in_file else None
    if since is None:
        what = tr(
            "its age is not known: {key} does not stand in {file}", key=KEY_VARIABLE, file=env_file
        )
        step = tr("keep the key in {file}, where `pillops key rotate` dates it", file=env_file)
        found.add("attention", what, step)
    elif is_ahead(since, visit.now):
        what = tr(
            "its age is not known: it is dated {day}, after now: {ask}",
            day=f"{since:%Y-%m-%d}",
            ask=tr(ASK),
        )
        step = tr("set the clock right; then {step}", step=tr(ROTATE))
        found.add("attention", what, step)
    else:
        age = max((visit.now - since).total_seconds() / DAY_S, 0.0)
        told = tr(
            "{age} old, to be rotated after {days:g} days", age=describe_days(age), days=limit_days
        )
        found.add(*(("attention", told, tr(ROTATE)) if age > limit_days else ("ok", told)))
    mode = stat.S_IMODE(env_file.stat().st_mode) if in_file else 0
    if mode & 0o077:
        told = tr("{file} is open to others (mode {mode:o})", file=env_file, mode=mode)
        found.add("attention", told, f"`chmod 600 {env_file}`")
    elif in_file:
        found.add("ok", tr("{file} is readable by its owner alone", file=env_file.name))
    return found.answer()


def check_strangers(visit: Visit) -> Answer:
    """Return whether every guarded route turns away a caller with no key or with a wrong one."""
    found = Evidence()
    absent = dict[str, None]()
    callers = {tr("without a key"): None, tr("with a wrong key"): make_key()}
    try:
        for who, key in callers.items():
            with open_http(visit, key=key) as client:
                for method, route in GUARDED:
                    status = client.request(method, route).status_code
                    if status == NOT_THERE and route == OPTIONAL:
                        absent[f"{method} {route}"] = None
                    elif status not in CLOSED:
                        found.add(
                            "failed",
                            tr(
                                "{route} {who}: {status}, not 401",
                                route=f"{method} {route}",
                                who=who,
                                status=status,
                            ),
                        )
    except httpx.HTTPError as error:
        return could_not_ask(error)
    if not found.lines:
        closed = tr_many(
            "{count} route closed without a key and with a wrong one",
            "{count} routes closed without a key and with a wrong one",
            len(GUARDED) - len(absent),
        )
        found.add("ok", closed)
    for name in absent:
        found.add("ok", tr("{route} is not there ({status})", route=name, status=NOT_THERE))
    step = tr("take it from the net until it is repaired: `sc.exe stop Cloudflared`")
    return found.answer(step)


def check_cors(visit: Visit) -> Answer:
    """Return whether a browser on a foreign page is refused, and the front ends are let in."""
    listed = load_service_environment(visit.config).cors_allow_origins
    found = Evidence()
    try:
        with open_http(visit) as client:
            for origin in (EVIL, "null", *_lookalikes(listed)):
                allowed = _allowed_for(client, origin)
                if allowed in ("*", origin):
                    told = tr("a page from {origin} is let in", origin=origin)
                    found.add("failed", f"{told} ({ALLOWS}: {allowed})", tr(ORIGINS_STEP))
            refused = [one for one in listed if one != "*" and not _allowed_for(client, one)]
    except httpx.HTTPError as error:
        return could_not_ask(error)
    if "*" in listed:
        found.add("failed", tr("CORS_ALLOW_ORIGINS in .env is *"), tr(ORIGINS_STEP))
    if refused:
        step = tr("restart the service, so that it reads .env again")
        told = tr("listed in .env, and refused: {origins}", origins=", ".join(refused))
        found.add("attention", told, step)
    development = [one for one in listed if urlsplit(one).hostname in DEVELOPMENT]
    if development and not visit.config.is_demo:
        told = tr("a development origin is let in: {origins}", origins=", ".join(development))
        found.add("attention", told, tr(ORIGINS_STEP))
    if not found.lines:
        told = tr("foreign pages refused; let in: {origins}", origins=", ".join(listed))
        found.add("ok", told)
    return found.answer()


def check_uploads(visit: Visit) -> Answer:
    """Return whether an image that is too large is refused, and what is no image too."""
    section = visit.config.checklist
    limit_mb, found = section.upload_limit_mb, Evidence()
    try:
        key = read_key(visit)
        if not key:
            raise ConfigError(
                tr("{key}: not set; put the service's key into .env", key=KEY_VARIABLE)
            )
        offer = offer_oversize(visit.config.client.url, key, limit_mb, section.timeout_s)
        found.add(*_judge_size(offer, limit_mb))
        with open_http(visit, key=key) as client:
            for what, file in NO_IMAGES.items():
                status = client.post("/predict", files={"image": file}).status_code
                found.add(*_judge_type(tr(what), status))
    except (httpx.HTTPError, OSError) as error:
        return could_not_ask(error)
    return found.answer(
        tr("MAX_UPLOAD_MB={mb} and ALLOWED_EXTS in .env, then restart the service", mb=limit_mb)
    )


@dataclass(frozen=True)
class Oversize:
    """How the offer was answered (None: not at all, or by hanging up, as `closed` says), and
    whether its declared size sufficed."""

    status: int | None
    declared: bool
    closed: bool = False


def offer_oversize(url: str, key: str, limit_mb: int, timeout_s: float) -> Oversize:
    """Offer an image one MiB above `limit_mb` to `/predict`, or raise OSError where the service
    cannot be reached, ConfigError where no header can carry the key. Its size is declared first and
    an answer awaited; only where none comes, as from a service that counts what arrives, is the
    image sent, until there is one."""
    parts, size = urlsplit(normalise_url(url)), (limit_mb + 1) * MIB
    headers = {
        HEADER: check_sendable(key),
        "User-Agent": _BOUNDARY,
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(_HEAD) + size + len(_TAIL)),
    }
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    with closing(connect(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
        connection.request("POST", f"{parts.path}/predict", headers=headers)
        declared = _answers_within(connection, min(timeout_s, DECLARED_WAIT_S))
        if not declared:
            _send_until_answered(connection, size)
        try:
            return Oversize(connection.getresponse().status, declared)
        except ConnectionResetError:
            return Oversize(None, declared, closed=True)
        except (TimeoutError, http.client.HTTPException):
            return Oversize(None, declared)


def _send_until_answered(connection: http.client.HTTPConnection, size: int) -> None:
    block = bytes(MIB)
    with suppress(BrokenPipeError, ConnectionResetError):  # perhaps after an answer
        connection.send(_HEAD)
        for _ in range(size // MIB):
            connection.send(block)
            if _answers_within(connection, 0.0):
                return
        connection.send(_TAIL)


def _answers_within(connection: http.client.HTTPConnection, wait_s: float) -> bool:
    return bool(select.select([connection.sock], [], [], wait_s)[0])


def _judge_size(offer: Oversize, limit_mb: int) -> tuple[State, str]:
    what, status = tr("an image of {mb} MiB", mb=limit_mb + 1), offer.status
    if status == 413 and offer.declared:
        return "ok", tr("{what} is refused (413, by its size alone)", what=what)
    if status == 413:
        return "ok", tr("{what} is refused ({status})", what=what, status=status)
    if offer.closed:
        return "ok", tr("{what} is refused (the service hung up)", what=what)
    if status in CLOSED:
        return "failed", tr(
            "{what}: {status}: the key in .env is not the service's", what=what, status=status
        )
    if status in BUSY:
        return "unknown", _tell_busy(what, status)
    if status is None:
        return "failed", tr("{what} is taken in without an answer: there is no limit", what=what)
    return "failed", tr(
        "{what} is answered {status}, not 413: the limit is off, or higher",
        what=what,
        status=status,
    )


def _judge_type(what: str, status: int) -> tuple[State, str]:
    if status in BUSY:
        return "unknown", _tell_busy(what, status)
    if status == 200:
        return "failed", tr("{what} is classified as if it were an image", what=what)
    if status >= 500:
        return "failed", tr("{what} breaks the service ({status})", what=what, status=status)
    return "ok", tr("{what} is refused ({status})", what=what, status=status)


def _tell_busy(what: str, status: int) -> str:
    return tr("{what}: {status}: the service is busy, or has no model", what=what, status=status)


def _lookalikes(listed: tuple[str, ...]) -> list[str]:
    """Origins that begin like a listed one, or end like it, and are others."""
    for origin in listed:
        host = urlsplit(origin).hostname
        if host and "." in host:
            return [f"https://{host}.checklist.invalid", f"https://checklist-{host}"]
    return []


def _allowed_for(client: httpx.Client, origin: str) -> str | None:
    wish = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    wish["Access-Control-Request-Headers"] = HEADER
    plain = client.get("/health", headers={"Origin": origin})
    for answer in (client.options("/predict", headers=wish), plain):
        allowed: str | None = answer.headers.get(ALLOWS)
        if allowed in ("*", origin):
            return allowed
    return None
