"""Which errors the service and the tunnel have logged since the last look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from opslib.checklist.facts import LogGroup
from opslib.checklist.items import Answer, State, Visit
from opslib.checklist.log_digest import LogDigest
from opslib.core.config import Config
from opslib.core.formatting import format_bytes, plural
from opslib.core.secrets import live_secrets

API_LOG = "api.err"
TUNNEL_LOG = "cloudflared.log"
SHOWN_GROUPS = 3


def check_api_log(visit: Visit) -> Answer:
    """Return what `api.err` and its archives say since the window began."""
    path = visit.config.logs_dir / API_LOG
    if not path.exists() and not find_log_files(path, visit):
        return Answer(
            state="attention",
            evidence=(f"{path}: no such log: the service never ran on this experiment",),
            next_step="start the service: `make serve`; or is paths.exp_dir another folder?",
        )
    step = f"read it: `grep ERROR {path} | tail`, then restart or roll back if answers are wrong"
    return _digest(visit, path, "API", step)


def check_tunnel_log(visit: Visit) -> Answer:
    """Return what cloudflared's log and its rotated parts say since the window began."""
    path = tunnel_log_path(visit.config)
    try:
        there = path.is_file() or bool(find_log_files(path, visit))
    except PermissionError:
        there = True  # reading it will say so
    if not there:
        demo = visit.config.is_demo
        return Answer(
            state="not applicable" if demo else "attention",
            evidence=(f"not set up: {path} is not there",),
            next_step=None if demo else "name the tunnel's log: `checklist.cloudflared_log`",
        )
    step = f"read it: `grep ERR {path} | tail`; does the tunnel answer? see the outside health"
    return _digest(visit, path, "cloudflared", step)


def tunnel_log_path(config: Config) -> Path:
    """Return where cloudflared's log is: as the checklist is told, else as its rotation is."""
    given = config.checklist.cloudflared_log or config.rotate.log
    return config.resolve(given) if given else config.logs_dir / TUNNEL_LOG


def find_log_files(path: Path, visit: Visit) -> list[Path]:
    """Return the log at `path` and its rotated parts, beside it or in `archive/`, that were
    written to since the window began, the newest last."""
    since = (visit.now - timedelta(hours=visit.window_h)).timestamp()
    found = [path, *path.parent.glob(f"{path.name}.*"), *path.parent.glob(f"archive/{path.name}*")]
    dated = []
    for one in found:
        try:
            facts = one.stat()
        except FileNotFoundError:
            continue
        if facts.st_mtime >= since and one.is_file():
            dated.append((facts.st_mtime_ns, one))
    return [one for _, one in sorted(dated)]


def _digest(visit: Visit, path: Path, source: str, step: str) -> Answer:
    section = visit.config.checklist
    since = visit.now - timedelta(hours=visit.window_h)
    digest = LogDigest(source, since)
    try:
        files = find_log_files(path, visit)
    except PermissionError as error:
        files, digest.problems = [], [f"{path}: {error.strerror}"]
    for file in files:
        digest.add_file(file)
    groups = digest.groups(live_secrets(visit.config.root), section.log_ignore)
    counted = [group for group in groups if not group.ignored]
    count = sum(group.count for group in counted)
    state: State = "ok"
    if digest.problems:
        state = "unknown"
    if count:
        state = "failed" if count >= section.log_errors_failed else "attention"
    if any(group.level == "CRITICAL" for group in counted):
        state = "failed"
    lines = [_sum_up(digest, count, groups, since)]
    lines += [describe_group(group) for group in counted[:SHOWN_GROUPS]]
    if len(counted) > SHOWN_GROUPS:
        lines.append(f"and {plural(len(counted) - SHOWN_GROUPS, 'other message')}")
    if digest.undated:
        lines.append(f"{plural(digest.undated, 'line')} without a time: may be older")
    lines += digest.problems
    if state == "unknown":
        step = "let this account read the log, or run the checklist as one that may"
    return Answer(
        state=state,
        evidence=tuple(lines),
        next_step=None if state == "ok" else step,
        groups=tuple(groups),
    )


def _sum_up(digest: LogDigest, count: int, groups: list[LogGroup], since: datetime) -> str:
    ignored = sum(group.count for group in groups if group.ignored)
    kinds = len([group for group in groups if not group.ignored])
    said = f"{plural(count, 'error line')} in {plural(kinds, 'group')}" if count else "no error"
    passed = f", {ignored:,} ignored as configured" if ignored else ""
    read = f"{plural(digest.files, 'file')}, {format_bytes(digest.read_bytes)}"
    return f"{said} since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC{passed} ({read})"


def describe_group(group: LogGroup) -> str:
    """Return a group as one line: how often, when, what."""
    if group.first_utc is None or group.last_utc is None:
        when = "no time"
    elif group.first_utc[:16] == group.last_utc[:16]:
        when = _short(group.last_utc)
    else:
        when = f"{_short(group.first_utc)} to {_short(group.last_utc)}"
    return f"{group.count:,} × {group.example} ({when})"


def _short(moment_utc: str) -> str:
    return moment_utc[5:16].replace("T", " ")
